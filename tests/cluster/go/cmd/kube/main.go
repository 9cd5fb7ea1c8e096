// Command kube is every part of a Kubernetes node in one binary: etcd, the control plane, the kubelet,
// kube-proxy, kubectl and CoreDNS. Linking once instead of seven times is what makes a cold build short.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// run executes a cobra command and ends the process with its exit code.
func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

// components maps the first argument to what it starts.
// The scheduler is called without options on purpose: a nil option panics once it is configured.
var components = map[string]func(){
	"etcd":                    func() { etcdmain.Main(append([]string{"etcd"}, os.Args[1:]...)) },
	"kube-apiserver":          func() { run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() { run(controllers.NewControllerManagerCommand()) },
	"kube-proxy":              func() { run(proxy.NewProxyCommand()) },
	"kube-scheduler":          func() { run(scheduler.NewSchedulerCommand()) },
	"kubelet":                 func() { run(kubelet.NewKubeletCommand(context.Background())) },
	"kubectl":                 func() { run(kubectl.NewDefaultKubectlCommand()) },
	"coredns":                 serveDNS,
	"discover":                discover,
	"forward":                 forward,
	"remove-sandboxes":        removeSandboxes,
	"pull-image":              pullImage,
	"remove-image":            removeImage,
	"list-images":             listImages,
}

func main() {
	if len(os.Args) < 2 || components[os.Args[1]] == nil {
		names := make([]string, 0, len(components))
		for name := range components {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "usage: kube COMPONENT [flags]\ncomponents: %v\n", names)
		os.Exit(2)
	}
	start := components[os.Args[1]]
	os.Args = os.Args[1:]
	start()
}
