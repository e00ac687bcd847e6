// Command controlplane is a whole Kubernetes in one binary, for tests and the demo.
//
// Its first argument (or the name it is called by) picks what it is; everything after it goes there unchanged.
//
// Components. They share global registries (metrics, feature gates, flags), so each one runs in a process of its own:
// start the same file several times.
//
//	etcd                     the store
//	kube-apiserver
//	kube-controller-manager
//	kube-scheduler
//	kubelet                  the real kubelet with a fake container runtime (kubemark's hollow node)
//	kubeadm
//	kubectl                  also finds plugins; made for a symlink of that name
//
// Helpers, for what a process of its own must not do to the machine that it runs on:
//
//	private-network COMMAND…  runs COMMAND in a network of its own that has nothing but a loopback interface
//	guard COMPONENT|FILE …    runs a component (or another program) that ends when standard input is closed
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubemark "k8s.io/kubernetes/cmd/kubemark/app"
)

// components maps a name to the function that runs it. Each one reads os.Args itself, and never returns when all is well.
var components = map[string]func(args []string) error{
	"etcd":                    func(args []string) error { etcdmain.Main(args); return nil },
	"kube-apiserver":          cobraMain(apiserver.NewAPIServerCommand),
	"kube-controller-manager": cobraMain(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          cobraMain(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	// The real kubelet with a fake container runtime.
	"kubelet": cobraMain(kubemark.NewHollowNodeCommand),
	"kubectl": cobraMain(kubectl.NewDefaultKubectlCommand),
	"kubeadm": func([]string) error { return kubeadm.Run() },
}

// helpers maps the other names. They are apart from the components because a component may run under one of them.
var helpers = map[string]func(args []string) error{
	"private-network":       privateNetwork,
	"private-network-inner": privateNetworkInner,
	"guard":                 guard,
}

func cobraMain(command func() *cobra.Command) func([]string) error {
	return func([]string) error {
		os.Exit(cli.Run(command()))
		return nil
	}
}

func main() {
	run, args, err := pick(os.Args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	os.Args = args
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// pick finds the component by the name of the file (a symlink `kubectl`), else by the first argument.
func pick(argv []string) (func([]string) error, []string, error) {
	if run, ok := components[filepath.Base(argv[0])]; ok {
		return run, argv, nil
	}
	if len(argv) > 1 {
		if run, ok := components[argv[1]]; ok {
			return run, argv[1:], nil
		}
		if run, ok := helpers[argv[1]]; ok {
			return run, argv[1:], nil
		}
	}
	names := []string{"private-network", "guard"}
	for name := range components {
		names = append(names, name)
	}
	sort.Strings(names)
	return nil, nil, fmt.Errorf("name what to run first: %s", strings.Join(names, ", "))
}
