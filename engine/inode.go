package engine

import (
	"os"
	"syscall"
)

// inode gives the inode number of a file on a real file system.
func inode(st os.FileInfo) (uint64, bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return s.Ino, true
}
