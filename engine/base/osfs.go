package base

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

type osFS struct{ vfs.FS }

// NewOS is the machine's file system.
func NewOS() FS { return osFS{vfs.Default} }

func (osFS) CopyAttrs(name, like string) error {
	var st unix.Stat_t
	if err := unix.Stat(like, &st); err != nil {
		return IO("stat", like, err)
	}
	if err := os.Chmod(name, os.FileMode(st.Mode&0o777)); err != nil {
		return IO("chmod", name, err)
	}
	var now unix.Stat_t
	if err := unix.Stat(name, &now); err != nil {
		return IO("stat", name, err)
	}
	if now.Uid == st.Uid && now.Gid == st.Gid {
		return nil
	}
	if err := os.Chown(name, int(st.Uid), int(st.Gid)); err != nil {
		return &Error{Class: ErrIO, Op: "chown", Path: name, Offset: -1, Err: err,
			Next: fmt.Sprintf("run as root or as the owner of %s", like)}
	}
	return nil
}

func (osFS) LockFile(name string, kind LockKind, mode LockMode) (io.Closer, error) {
	flags := os.O_RDONLY
	if kind == Fcntl && mode == LockExclusive {
		flags = os.O_RDWR // the kernel grants a write lock only on a descriptor open for writing
	}
	f, err := os.OpenFile(name, flags, 0)
	if err != nil {
		return nil, IO("open lock file", name, err)
	}
	if kind == Flock {
		how := unix.LOCK_SH
		if mode == LockExclusive {
			how = unix.LOCK_EX
		}
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	} else {
		lk := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
		if mode == LockExclusive {
			lk.Type = unix.F_WRLCK
		}
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk)
	}
	if err == nil {
		return f, nil
	}
	defer f.Close()
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
		return nil, IO("lock", name, err)
	}
	reason := "another process holds the lock"
	if pid := lockHolder(f, kind); pid != 0 {
		reason = fmt.Sprintf("process %d%s holds the lock", pid, processName(pid))
	}
	return nil, &Error{Class: ErrInUse, Op: "lock", Path: name, Offset: -1, Reason: reason,
		Next: "stop tikv-server (and any other tool) on this directory, then run the command again"}
}

// lockHolder finds the pid in /proc/locks by device and inode: it serves both kinds of lock, while F_GETLK knows nothing of
// flock and reports -1 for open-file-description locks. 0 when it cannot be told (another pid namespace, no /proc).
func lockHolder(f *os.File, kind LockKind) int {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	table, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for _, line := range strings.Split(string(table), "\n") {
		w := strings.Fields(line)
		// "1: POSIX ADVISORY WRITE 4242 fd:01:131 0 EOF"; a waiter has "->" in second place.
		if len(w) < 6 || w[5] != want || (w[1] == "FLOCK") != (kind == Flock) {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(w[4], &pid); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

func processName(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "comm"))
	if err != nil {
		return ""
	}
	return " (" + strings.TrimSpace(string(b)) + ")"
}
