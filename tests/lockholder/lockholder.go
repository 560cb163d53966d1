// Package lockholder lets a test binary play an engine that is running: a second process of it holds locks until it is told to end.
// Some kinds of lock keep out other processes only.
package lockholder

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const env = "TIKV_REPAIR_TEST_HOLD"

// Main is the TestMain of a package that calls Hold.
func Main(m *testing.M) {
	list := os.Getenv(env)
	if list == "" {
		os.Exit(m.Run())
	}
	if err := hold(strings.Split(list, "\n")); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// hold takes the locks, says so, and keeps them until standard input ends.
func hold(locks []string) error {
	var held []*os.File // a file that the collector closes gives its lock back
	for _, l := range locks {
		how, path, _ := strings.Cut(l, " ")
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		held = append(held, f)
		switch how {
		case "flock":
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		case "posix":
			err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		case "ofd":
			err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		case "ofd-read":
			err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
		default:
			err = errors.New("no such kind of lock")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	fmt.Println("held", len(held))
	_, err := io.Copy(io.Discard, os.Stdin)
	for _, f := range held {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Hold runs a process that holds locks on files below dir until release is called. Each lock is a kind and a path: "flock" is
// flock(2); "posix" a classic fcntl(2) record lock, which a process loses with any descriptor of the file that it closes; "ofd" and
// "ofd-read" are one of an open file description, for writing and for reading.
func Hold(tb testing.TB, dir string, locks ...string) (pid int, release func()) {
	tb.Helper()
	list := make([]string, len(locks))
	for i, l := range locks {
		how, path, _ := strings.Cut(l, " ")
		list[i] = how + " " + filepath.Join(dir, path)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env+"="+strings.Join(list, "\n"))
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		tb.Fatal(err)
	}
	release = func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the process that holds the locks: %v", err)
		}
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != fmt.Sprintf("held %d\n", len(locks)) {
		release()
		tb.Fatalf("the process that holds the locks says %q, %v", line, err)
	}
	return cmd.Process.Pid, release
}
