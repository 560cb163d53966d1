package base

import (
	"golang.org/x/sys/unix"
)

// ReadEnd reads the end of a file into buf: its last len(buf)-1 bytes, or all of it when it is shorter. size is what somebody says that
// the file has, in bytes, 0 when nobody does; actual is what it has. end aliases buf.
//
// On the machine's own file system a file that has the expected size costs three system calls and no memory: a store may have 100,000
// tables of which only the end is looked at. A pulse that watches it counts the end and may refuse it. Any other file system is asked as for
// any other file.
func ReadEnd(fs FS, name string, size int64, buf []byte) (end []byte, actual int64, err error) {
	under := fs
	w, isWatched := fs.(watched)
	if isWatched {
		under = w.FS
	}
	if _, ok := under.(osFS); ok && size > 0 && len(buf) > 1 {
		if isWatched {
			if err := w.p.ask(); err != nil {
				return nil, 0, IO("open", name, err)
			}
		}
		if end, ok := readEndOnce(name, size, buf); ok {
			if isWatched {
				w.p.read.Add(int64(len(end)))
			}
			return end, size, nil
		}
	}
	f, err := fs.Open(name)
	if err != nil {
		return nil, 0, IO("open", name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, IO("stat", name, err)
	}
	actual = st.Size()
	end = buf[:max(0, min(actual, int64(len(buf))-1))]
	if n, err := f.ReadAt(end, actual-int64(len(end))); n < len(end) {
		return nil, actual, IO("read", name, err)
	}
	return end, actual, nil
}

// readEndOnce takes the quick way. Whatever is not as expected, an error included, is left to the other one: only a file of exactly that
// size gives one byte less than is asked for.
func readEndOnce(name string, size int64, buf []byte) ([]byte, bool) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	want := min(size, int64(len(buf))-1)
	n, err := unix.Pread(fd, buf[:want+1], size-want)
	if e := unix.Close(fd); err == nil {
		err = e
	}
	return buf[:want], err == nil && int64(n) == want
}
