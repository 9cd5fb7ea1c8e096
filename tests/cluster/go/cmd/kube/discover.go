package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"regexp"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// discoveryDelay gathers the changes of one moment into one file.
const discoveryDelay = 200 * time.Millisecond

// notLabel matches what a label name of Prometheus may not contain.
var notLabel = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// target is one entry of a Prometheus file_sd list.
type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// discover keeps a list of all pods in a file that Prometheus reads.
// The labels are those of Prometheus's own kubernetes_sd, which Debian's build leaves out.
func discover() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: kube discover KUBECONFIG TARGETS_FILE")
		os.Exit(2)
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(config), 0)
	pods := factory.Core().V1().Pods()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // A write is already due.
		}
	}
	_, err = pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	})
	if err != nil {
		log.Fatal(err)
	}
	factory.Start(context.Background().Done())
	factory.WaitForCacheSync(context.Background().Done())
	for notify(); ; time.Sleep(discoveryDelay) {
		<-changed
		list, err := pods.Lister().List(labels.Everything())
		if err == nil {
			err = writeTargets(os.Args[2], list)
		}
		if err != nil {
			log.Print(err)
		}
	}
}

// writeTargets replaces the file by the pods that have an address, in a stable order.
func writeTargets(path string, pods []*corev1.Pod) error {
	targets := make([]target, 0, len(pods))
	for _, pod := range pods {
		if pod.Status.PodIP != "" && !pod.Spec.HostNetwork {
			targets = append(targets, podTarget(pod))
		}
	}
	sort.Slice(targets, func(i, j int) bool { return targets[i].Targets[0] < targets[j].Targets[0] })
	text, err := json.Marshal(targets)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// podTarget describes one pod; the port is set by a relabel rule from the pod's annotation.
func podTarget(pod *corev1.Pod) target {
	const meta = "__meta_kubernetes_pod_"
	described := map[string]string{
		"__meta_kubernetes_namespace": pod.Namespace,
		meta + "name":                 pod.Name,
		meta + "ip":                   pod.Status.PodIP,
		meta + "phase":                string(pod.Status.Phase),
		meta + "node_name":            pod.Spec.NodeName,
	}
	for name, value := range pod.Labels {
		described[meta+"label_"+notLabel.ReplaceAllString(name, "_")] = value
	}
	for name, value := range pod.Annotations {
		described[meta+"annotation_"+notLabel.ReplaceAllString(name, "_")] = value
	}
	return target{Targets: []string{pod.Status.PodIP}, Labels: described}
}
