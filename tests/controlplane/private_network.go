package main

// The hollow kubelet listens on all interfaces and has no flag to change that. So the test clusters and their clients run
// in their own network namespace with only a loopback interface. No port is reachable from outside, and no port of the
// machine is in conflict.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// privateAddress is a second address of the private network, from a block reserved for documentation (RFC 5737). The API
// server does not proxy to loopback addresses, so the target of a Service needs another one.
var privateAddress = []byte{192, 0, 2, 1}

// privateNetworkVariable tells the processes inside that no port is reachable from outside.
const privateNetworkVariable = "TEST_CLUSTER_PRIVATE_NETWORK"

const openPortsWarning = "warning: no private network (%v): the two ports of each hollow kubelet, numbers in the " +
	"20000s picked at its start, will be open on all interfaces of this machine while it runs\n"

// errNoNamespace says that the kernel (or the distribution's policy) does not let this user have a namespace.
type errNoNamespace struct{ reason string }

func (e errNoNamespace) Error() string { return e.reason }

// privateNetwork runs `private-network COMMAND…` in new user and network namespaces, and exits with the exit code of
// COMMAND. Where namespaces are not allowed, it prints a warning and runs COMMAND without them.
func privateNetwork(args []string) error {
	argv := args[1:]
	if len(argv) == 0 {
		return errors.New("private-network: name the command to run")
	}
	file, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("private-network: %w", err)
	}
	if os.Getenv(privateNetworkVariable) != "" {
		return syscall.Exec(file, argv, os.Environ())
	}
	child, err := startInside(file, argv)
	var none errNoNamespace
	if errors.As(err, &none) {
		fmt.Fprintf(os.Stderr, openPortsWarning, none)
		return syscall.Exec(file, argv, os.Environ())
	}
	if err != nil {
		return err
	}
	// A terminal sends its signals to the whole foreground group, COMMAND included.
	stop := forwardSignals(child.Process, term.IsTerminal(int(os.Stdin.Fd())))
	defer stop()
	return exitLike(child.Wait(), child)
}

// startInside starts this file again inside the namespaces, as privateNetworkInner, and returns once that one has
// become COMMAND. Its two steps need two processes: Go cannot enter a user namespace with its threads running.
func startInside(file string, argv []string) (*exec.Cmd, error) {
	report, reportInner, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer report.Close()
	// The kernel ties a parent-death signal to the thread that forked; the main thread exists as long as the process.
	runtime.LockOSThread()
	child := exec.Command("/proc/self/exe", append([]string{"private-network-inner", file}, argv...)...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.Env = append(os.Environ(), privateNetworkVariable+"=1")
	child.ExtraFiles = []*os.File{reportInner}
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err = child.Start()
	_ = reportInner.Close()
	if err != nil {
		return nil, errNoNamespace{err.Error()}
	}
	problem, err := io.ReadAll(report)
	if err != nil {
		return nil, err
	}
	if len(problem) > 0 {
		_ = child.Wait()
		return nil, errNoNamespace{strings.TrimSpace(string(problem))}
	}
	return child, nil
}

// privateNetworkInner is the second step, `private-network-inner FILE ARGV0 …`: it brings the loopback interface up and
// executes the command. It writes an error to descriptor 3, which is closed on success.
func privateNetworkInner(args []string) error {
	report := os.NewFile(3, "report")
	unix.CloseOnExec(3)
	// This fails where a policy denies capabilities inside a namespace, as AppArmor does on Ubuntu.
	if err := errors.Join(loopbackUp(), addAddress()); err != nil {
		fmt.Fprintln(report, err)
		os.Exit(1)
	}
	if err := syscall.Exec(args[1], args[2:], os.Environ()); err != nil {
		fmt.Fprintln(report, err)
		os.Exit(1)
	}
	return nil
}

func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring the loopback interface up: %w", err)
	}
	return nil
}

// addAddress adds privateAddress to the loopback interface, under its own label.
func addAddress() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	if err := request.SetInet4Addr(privateAddress); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFADDR, request); err != nil {
		return fmt.Errorf("give the loopback interface a second address: %w", err)
	}
	return nil
}

// forwardSignals forwards signals to the child until stop is called. With sharesTerminal it does not forward the signals
// of the terminal, which the child receives from the terminal itself.
func forwardSignals(child *os.Process, sharesTerminal bool) (stop func()) {
	incoming := make(chan os.Signal, 16)
	signal.Notify(incoming, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range incoming {
			if sharesTerminal && (s == syscall.SIGINT || s == syscall.SIGQUIT) {
				continue
			}
			_ = child.Signal(s)
		}
	}()
	return func() { signal.Stop(incoming); close(incoming) }
}

// exitLike exits with the exit code of the child, or with 128 + the signal, as a shell does.
func exitLike(err error, child *exec.Cmd) error {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	os.Exit(exitCode(child.ProcessState.Sys().(syscall.WaitStatus)))
	return nil
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
