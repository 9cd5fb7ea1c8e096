package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// removalDeadline bounds the removal of all pods of the node.
	removalDeadline = 90 * time.Second
	// imageDeadline bounds one call about an image: a pull of several gigabytes on a busy disk.
	imageDeadline = 15 * time.Minute
)

// dial connects to the container runtime at os.Args[1], after checking the number of arguments.
func dial(usage string, count int) *grpc.ClientConn {
	if len(os.Args) != count+1 {
		fmt.Fprintln(os.Stderr, "usage: kube "+usage)
		os.Exit(2)
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

// removeSandboxes stops and removes every pod sandbox that the runtime knows.
// Going through the runtime is what unmounts, runs the CNI plugins' DEL and frees network namespaces in order.
func removeSandboxes() {
	connection := dial("remove-sandboxes unix://SOCKET", 1)
	defer connection.Close()
	client := runtime.NewRuntimeServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), removalDeadline)
	defer cancel()
	list, err := client.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		log.Fatal(err)
	}
	failures := 0
	for _, sandbox := range list.Items {
		if err := removeSandbox(ctx, client, sandbox.Id); err != nil {
			log.Printf("pod %s/%s: %v", sandbox.Metadata.Namespace, sandbox.Metadata.Name, err)
			failures++
			continue
		}
		fmt.Printf("%s/%s\n", sandbox.Metadata.Namespace, sandbox.Metadata.Name)
	}
	if failures > 0 {
		os.Exit(1)
	}
}

// removeSandbox kills the containers of one sandbox at once (no grace period), then stops and removes it.
func removeSandbox(ctx context.Context, client runtime.RuntimeServiceClient, id string) error {
	containers, err := client.ListContainers(ctx, &runtime.ListContainersRequest{
		Filter: &runtime.ContainerFilter{PodSandboxId: id},
	})
	if err != nil {
		return err
	}
	for _, container := range containers.Containers {
		if _, err := client.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: container.Id}); err != nil {
			return err
		}
	}
	if _, err := client.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return err
	}
	_, err = client.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}

// pullImage has the runtime pull an image as it would for a pod, so that the first pod need not wait for it.
func pullImage() {
	connection := dial("pull-image unix://SOCKET REFERENCE", 2)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), imageDeadline)
	defer cancel()
	answer, err := runtime.NewImageServiceClient(connection).PullImage(ctx, &runtime.PullImageRequest{
		Image: &runtime.ImageSpec{Image: os.Args[2]},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.ImageRef)
}

// removeImage has the runtime forget an image and free what no other image or container uses.
func removeImage() {
	connection := dial("remove-image unix://SOCKET REFERENCE", 2)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), imageDeadline)
	defer cancel()
	_, err := runtime.NewImageServiceClient(connection).RemoveImage(ctx, &runtime.RemoveImageRequest{
		Image: &runtime.ImageSpec{Image: os.Args[2]},
	})
	if err != nil {
		log.Fatal(err)
	}
}

// listImages prints the references of the images that the runtime has, one a line.
func listImages() {
	connection := dial("list-images unix://SOCKET", 1)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), imageDeadline)
	defer cancel()
	answer, err := runtime.NewImageServiceClient(connection).ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		log.Fatal(err)
	}
	for _, image := range answer.Images {
		for _, tag := range image.RepoTags {
			fmt.Println(tag)
		}
	}
}
