package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary plays the real one when it is started with this variable: the helpers start their own file again.
const playMain = "CONTROLPLANE_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(playMain) != "" || os.Getenv(privateNetworkVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func controlplane(args ...string) *exec.Cmd {
	command := exec.Command("/proc/self/exe", args...)
	command.Env = append(os.Environ(), playMain+"=1")
	return command
}

func TestPrivateNetworkHasOnlyALoopbackInterfaceThatIsUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var stderr strings.Builder
	command := controlplane("private-network", "cat", "/proc/net/dev", "/proc/net/tcp")
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	if strings.Contains(stderr.String(), "no private network") {
		t.Skip(stderr.String())
	}
	// Two lines of heading, one interface, one line of heading and no socket.
	if lines := strings.Count(string(out), "\n"); lines != 4 || !strings.Contains(string(out), "lo:") {
		t.Errorf("not an empty network:\n%s", out)
	}
}

func TestPrivateNetworkPassesInputOutputAndExitCodeThrough(t *testing.T) {
	command := controlplane("private-network", "sh", "-c", "read word; echo got $word; exit 7")
	command.Stdin = strings.NewReader("hello\n")
	out, _ := command.Output()
	if string(out) != "got hello\n" || command.ProcessState.ExitCode() != 7 {
		t.Errorf("printed %q and exited with %d", out, command.ProcessState.ExitCode())
	}
}

func TestPrivateNetworkPassesSIGTERMThrough(t *testing.T) {
	command := controlplane("private-network", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadFull(stdout, make([]byte, len("ready\n")))
	_ = command.Process.Signal(syscall.SIGTERM)
	_ = command.Wait()
	if code := command.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exited with %d", code)
	}
}

func TestGuardEndsTheProgramWhenItsInputIsClosed(t *testing.T) {
	command := controlplane("guard", "/bin/sleep", "600")
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_ = stdin.Close()
	late := time.AfterFunc(30*time.Second, func() { _ = command.Process.Kill() })
	_ = command.Wait()
	if !late.Stop() {
		t.Error("still there half a minute later")
	}
	if code := command.ProcessState.ExitCode(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("exited with %d", code)
	}
}

func TestOwnSocketsAreFoundByTheirPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	server, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if pid := listener(path); pid != os.Getpid() {
		t.Errorf("the listener is process %d", pid)
	}
	if sockets := ownSockets(); !slices.Contains(sockets, path) {
		t.Errorf("%s is not among %v", path, sockets)
	}
}

func TestEveryComponentIsFoundByItsNameAndByTheNameOfTheFile(t *testing.T) {
	for name := range components {
		if _, args, err := pick([]string{"/x/controlplane", name, "--flag"}); err != nil || len(args) != 2 {
			t.Errorf("%s as an argument: %v %v", name, args, err)
		}
		if _, args, err := pick([]string{"/x/" + name, "--flag"}); err != nil || len(args) != 2 {
			t.Errorf("%s as a file name: %v %v", name, args, err)
		}
	}
	if _, _, err := pick([]string{"/x/controlplane", "nonsense"}); err == nil {
		t.Error("nonsense was accepted")
	}
}
