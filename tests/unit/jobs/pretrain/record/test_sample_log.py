"""The file of samples across resumes and rollbacks."""

from hatchery_jobs.pretrain.record import Sample, read_samples, store_samples


def test_samples_after_the_checkpoint_are_written_again_and_not_doubled(tmp_path):
    def sample(step, text):
        return Sample(step=step, prompt="p", text=text, tokens=1, ended=False)

    path = tmp_path / "samples.jsonl"
    assert read_samples(path) == []
    store_samples(path, [sample(0, "ä\n")], 0)
    store_samples(path, [sample(5, "b")], 5)
    store_samples(path, [sample(9, "lost")], 9)
    store_samples(path, [sample(5, "again")], 5)
    assert [(s.step, s.text) for s in read_samples(path)] == [(0, "ä\n"), (5, "again")]
