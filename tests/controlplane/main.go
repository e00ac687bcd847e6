// Command controlplane is a whole Kubernetes in one binary, for tests and the demo.
//
// The first argument, or the name of the file, selects the component. The other arguments are passed to it unchanged.
//
// Components share global registries (metrics, feature gates, flags), so each one runs in its own process. Start the
// same file several times.
//
//	etcd
//	kube-apiserver
//	kube-controller-manager
//	kube-scheduler
//	kubelet                  the real kubelet with a fake container runtime (kubemark's hollow node)
//	kubeadm
//	kubectl                  finds plugins too; meant for a symlink of that name
//
// Helpers:
//
//	private-network COMMAND…  runs COMMAND in its own network, which has only a loopback interface
//	guard COMPONENT|FILE …    runs a component or another program, and ends it when standard input is closed
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

// components maps a name to the function that runs it. Each function reads os.Args itself, and returns only on failure.
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

// helpers maps the other names. They are separate from the components because guard runs components.
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

// pick selects the component by the name of the file (a symlink `kubectl`), otherwise by the first argument.
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
	return nil, nil, fmt.Errorf("the first argument must be one of: %s", strings.Join(names, ", "))
}
