package main

// The hollow kubelet listens on all interfaces and has no flag against it. So the whole test bed, and whoever talks to
// it, runs in one network namespace of its own where there is only a loopback interface: no port is ever open to the
// outside, and no port of the machine is in the way.

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

// privateAddress is an address of the private network besides 127.0.0.1, out of a block that is nobody's (RFC 5737). The
// API server proxies to no loopback address, so what shall be reached through a Service must have another one.
var privateAddress = []byte{192, 0, 2, 1}

// privateNetworkVariable tells those inside that nothing here can be reached from elsewhere.
const privateNetworkVariable = "TEST_CLUSTER_PRIVATE_NETWORK"

const openPortsWarning = "warning: no private network (%v): the two ports of each hollow kubelet, numbers in the " +
	"20000s picked at its start, will be open on all interfaces of this machine while it runs\n"

// errNoNamespace says that the kernel (or the distribution's policy) does not let this user have a namespace.
type errNoNamespace struct{ reason string }

func (e errNoNamespace) Error() string { return e.reason }

// privateNetwork runs `private-network COMMAND…` inside new user and network namespaces, and exits as COMMAND does.
// Where namespaces are not allowed it says what that means and runs COMMAND plainly.
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
	// The kernel ties a parent-death signal to the thread that forked; main's thread lives as long as the process.
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

// privateNetworkInner is the second half, `private-network-inner FILE ARGV0 …`: the loopback interface goes up and
// this process becomes the command. A problem is written to descriptor 3, which closes itself on success.
func privateNetworkInner(args []string) error {
	report := os.NewFile(3, "report")
	unix.CloseOnExec(3)
	// Where a policy takes the rights away inside a namespace (Ubuntu's AppArmor does), this is where it shows.
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

// addAddress gives the loopback interface privateAddress, under a label of its own.
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

// forwardSignals passes the signals that ask a process to end (or to do something) on to the child until stop is
// called. With sharesTerminal, those that a terminal sends are left to the terminal: twice would be once too many.
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

// exitLike ends this process as the child ended: with its code, or with 128 + the signal, as a shell says it.
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
