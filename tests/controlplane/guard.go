package main

// A component must never outlive the test that started it, not even if SIGKILL ends that test before it can clean up.
// So the test holds the writing end of a pipe that is the standard input of the component. However the test ends, the
// kernel closes the pipe.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// guard runs `guard COMPONENT …` in this process, or `guard FILE …` (an etcd or kube-apiserver that was built
// elsewhere) as a child, until standard input ends. It then exits at once: no process waits for an orderly shutdown, and an
// API server whose etcd has ended before it hangs in its shutdown for a minute.
func guard(args []string) error {
	if len(args) < 2 {
		return errors.New("guard: name a component or a program")
	}
	if run, ok := components[args[1]]; ok {
		go func() {
			waitForEnd(os.Stdin)
			removeKubeletTraces()
			fmt.Fprintln(os.Stderr, "guard: standard input was closed, so this process ends")
			os.Exit(0)
		}()
		os.Args = args[1:]
		return run(os.Args)
	}
	return guardChild(args[1:])
}

// waitForEnd returns when the writing end of the pipe is closed.
func waitForEnd(pipe io.Reader) {
	_, _ = io.Copy(io.Discard, pipe)
}

// removeKubeletTraces removes what the hollow kubelet in this process has created in /tmp under generated names: a root
// directory, where it listens on sockets, and the socket of its fake runtime.
func removeKubeletTraces() {
	const root = "/tmp/hollow-kubelet."
	for _, path := range ownSockets() {
		if below, ok := strings.CutPrefix(path, root); ok {
			unique, _, _ := strings.Cut(below, "/")
			_ = os.RemoveAll(root + unique)
		}
	}
	// This socket was bound under another name and then moved, so only a connection tells which process owns it.
	runtimes, _ := filepath.Glob("/tmp/kubelet_remote_*.sock")
	for _, path := range runtimes {
		if listener(path) == os.Getpid() {
			_ = os.Remove(path)
		}
	}
}

// listener returns the process that listens on a Unix socket, or 0.
func listener(path string) int {
	connection, err := net.Dial("unix", path)
	if err != nil {
		return 0
	}
	defer connection.Close()
	raw, err := connection.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(descriptor uintptr) {
		if peer, err := unix.GetsockoptUcred(int(descriptor), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(peer.Pid)
		}
	})
	return pid
}

// ownSockets returns the paths of the Unix sockets that this process holds: the lines of /proc/net/unix (inode and path
// are the last two fields) whose inode is among our open files.
func ownSockets() []string {
	table, err := os.ReadFile("/proc/self/net/unix")
	if err != nil {
		return nil
	}
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return nil
	}
	own := map[string]bool{}
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil {
			own[target] = true
		}
	}
	var paths []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) == 8 && own["socket:["+fields[6]+"]"] {
			paths = append(paths, fields[7])
		}
	}
	return paths
}

func guardChild(argv []string) error {
	// The kernel ties a parent-death signal to the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child := exec.Command(argv[0], argv[1:]...)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		return err
	}
	stop := forwardSignals(child.Process, false)
	defer stop()
	go func() {
		waitForEnd(os.Stdin)
		_ = child.Process.Kill()
	}()
	return exitLike(child.Wait(), child)
}
