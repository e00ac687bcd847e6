package main

// A component must never outlive the test that started it, not even when that test is killed by SIGKILL and can clean
// up nothing. So the test holds the writing end of a pipe that is the component's standard input: however the test
// ends, the kernel closes the pipe.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// guard runs `guard COMPONENT …` in this very process, or `guard FILE …` (an etcd or kube-apiserver that was built
// elsewhere) as a child, until standard input ends. The end is abrupt on purpose: whoever would care about an orderly
// one is dead, and an API server whose etcd goes first hangs in its shutdown for a minute.
func guard(args []string) error {
	if len(args) < 2 {
		return errors.New("guard: name a component or a program")
	}
	if run, ok := components[args[1]]; ok {
		go func() {
			waitForEnd(os.Stdin)
			fmt.Fprintln(os.Stderr, "guard: standard input was closed, so this process ends")
			os.Exit(0)
		}()
		os.Args = args[1:]
		return run(os.Args)
	}
	return guardChild(args[1:])
}

// waitForEnd returns when nobody can write to the pipe any more.
func waitForEnd(pipe io.Reader) {
	_, _ = io.Copy(io.Discard, pipe)
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
