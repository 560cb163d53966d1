package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// logger writes the lines of --log-file in TiKV's format:
//
//	[2026/01/02 15:04:05.000 +00:00] [INFO] [dump.go:42] ["rows printed"] [rows=12] [dir=/data/tikv]
//
// A message or value with a space, a quote, a bracket or an equals sign is a JSON string, others stand bare.
// Source: the unified log format of TiKV, tikv components/tikv_util/src/logger/formatter.rs, master.
type logger struct {
	now  func() time.Time
	f    vfs.File
	path string
	off  int64
	err  error
}

func (l *logger) open(fs base.FS, path string) error {
	st, err := fs.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		l.f, err = fs.Create(path, base.DiskWriteCategory)
	case err == nil:
		l.off = st.Size()
		l.f, err = fs.OpenReadWrite(path, base.DiskWriteCategory)
	}
	l.path = path
	return base.IO("open log", path, err)
}

func (l *logger) info(msg string, kv ...string)  { l.line("INFO", msg, kv) }
func (l *logger) warn(msg string, kv ...string)  { l.line("WARN", msg, kv) }
func (l *logger) error(msg string, kv ...string) { l.line("ERROR", msg, kv) }

func (l *logger) line(level, msg string, kv []string) {
	if l.f == nil || l.err != nil {
		return
	}
	// Two frames up is who called info; when that is say or warn, their caller is of more use.
	pc, file, no, _ := runtime.Caller(2)
	if name := runtime.FuncForPC(pc).Name(); strings.HasSuffix(name, ".say") || strings.HasSuffix(name, ").warn") {
		_, file, no, _ = runtime.Caller(3)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[%s] [%s] [%s:%d] [%s]", l.now().Format("2006/01/02 15:04:05.000 -07:00"), level, filepath.Base(file), no, logText(msg))
	for i := 0; i+1 < len(kv); i += 2 {
		fmt.Fprintf(&b, " [%s=%s]", logText(kv[i]), logText(kv[i+1]))
	}
	b.WriteByte('\n')
	n, err := l.f.WriteAt([]byte(b.String()), l.off)
	l.off += int64(n)
	l.err = err
}

func logText(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"=[]`, r) }) {
		return s
	}
	b, err := json.Marshal(s)
	if err != nil {
		return `"?"`
	}
	return string(b)
}

func (l *logger) close() error {
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	if l.err != nil {
		err = l.err
	}
	l.f = nil
	return base.IO("write log", l.path, err)
}
