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

// removalDeadline bounds the removal of all pods of the node.
const removalDeadline = 90 * time.Second

// removeSandboxes stops and removes every pod sandbox that a container runtime knows.
// Going through the runtime is what unmounts, runs the CNI plugins' DEL and frees network namespaces in order.
func removeSandboxes() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kube remove-sandboxes unix:///path/to/containerd.sock")
		os.Exit(2)
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
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
