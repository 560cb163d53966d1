package base

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

type osFS struct{ vfs.FS }

// NewOS is the machine's file system.
func NewOS() FS { return osFS{vfs.Default} }

// pebble attaches stack traces to the system's errors, and os.IsNotExist does not look through them. The methods below
// give the bare errors, so that both ways of asking work.

func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l
	}
	return err
}

func (o osFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := o.FS.Open(name, opts...)
	return f, bare(err)
}

func (o osFS) OpenDir(name string) (vfs.File, error) {
	f, err := o.FS.OpenDir(name)
	return f, bare(err)
}

func (o osFS) Stat(name string) (vfs.FileInfo, error) {
	st, err := o.FS.Stat(name)
	return st, bare(err)
}

func (o osFS) List(dir string) ([]string, error) {
	names, err := o.FS.List(dir)
	return names, bare(err)
}

func (o osFS) Remove(name string) error { return bare(o.FS.Remove(name)) }

func (o osFS) Rename(oldname, newname string) error { return bare(o.FS.Rename(oldname, newname)) }

func (o osFS) Link(oldname, newname string) error { return bare(o.FS.Link(oldname, newname)) }

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

func (osFS) Truncate(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return IO("open", name, err)
	}
	st, err := f.Stat()
	if err != nil {
		err = IO("stat", name, err)
	} else if err = checkTruncate(name, st.Size(), size); err == nil {
		if err = f.Truncate(size); err == nil {
			err = f.Sync()
		}
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return IO("truncate", name, err)
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
	if pid := lockHolder(f, kind, mode); pid != 0 {
		reason = fmt.Sprintf("process %d%s holds the lock", pid, processName(pid))
	}
	return nil, &Error{Class: ErrInUse, Op: "lock", Path: name, Offset: -1, Reason: reason,
		Next: "stop tikv-server (and any other tool) on this directory, then run the command again"}
}

// lockHolder finds the pid of a process that holds a conflicting lock; 0 when it cannot be told (another pid namespace, no
// /proc, another user's process).
func lockHolder(f *os.File, kind LockKind, mode LockMode) int {
	if kind == Fcntl {
		lk := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
		if mode == LockExclusive {
			lk.Type = unix.F_WRLCK
		}
		// Names the owner of a classic lock; -1 stands for an open-file-description lock.
		if unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk) == nil && lk.Type != unix.F_UNLCK && lk.Pid > 0 {
			return int(lk.Pid)
		}
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	if table, err := os.ReadFile("/proc/locks"); err == nil {
		for line := range strings.SplitSeq(string(table), "\n") {
			if pid, ok := lockLine(line, id, kind); ok && pid > 0 {
				return pid
			}
		}
	}
	return descriptorHolder(id, kind)
}

// lockLine reads a line like "1: POSIX ADVISORY WRITE 4242 fd:01:131 0 EOF" of /proc/locks or of an fdinfo file; a waiter
// has "->" in second place. ok tells whether it is a lock of that kind on the file with that id.
func lockLine(line, id string, kind LockKind) (pid int, ok bool) {
	w := strings.Fields(line)
	if len(w) < 6 || w[5] != id || (w[1] == "FLOCK") != (kind == Flock) || w[1] == "LEASE" || w[1] == "DELEG" {
		return 0, false
	}
	pid, err := strconv.Atoi(w[4])
	return pid, err == nil
}

// descriptorHolder asks every process for its open files: the only place that knows the owner of an
// open-file-description lock, another tikv-repair's.
func descriptorHolder(id string, kind LockKind) int {
	infos, err := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	if err != nil {
		return 0
	}
	for _, name := range infos {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // gone, or another user's
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			rest, isLock := strings.CutPrefix(line, "lock:")
			if !isLock {
				continue
			}
			if _, ok := lockLine(rest, id, kind); ok {
				pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
				return pid
			}
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
