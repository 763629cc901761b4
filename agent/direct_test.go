// Large files past the page cache, and what happens where that cannot be done.

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestALargeFileIsWrittenDirectly(t *testing.T) {
	for name, size := range map[string]int64{"whole blocks": 2 * directBytesMin, "a rest": 2*directBytesMin + 4097} {
		file := openNew(t)
		w := newFileWriter(int(file.Fd()), &size)
		if !w.isDirect {
			t.Skip("this filesystem does not write directly")
		}
		content, given := patterned(int(size)), 0
		for rest := content; len(rest) > 0; {
			piece := rest[:lower(len(rest), 70_001)]
			if err := w.write(piece, func(count int) { given += count }); err != nil {
				t.Fatal(err)
			}
			rest = rest[len(piece):]
		}
		if err := w.finish(); err != nil || given != len(content) || w.isDirect {
			t.Fatal(name, err, given, w.isDirect)
		}
		w.drop()
		if written, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(written, content) {
			t.Fatalf("%s: %d others came out: %v", name, len(written), err)
		}
	}
}

func TestAFileIsWrittenWhereDirectWritesFail(t *testing.T) {
	file, size := openNew(t), int64(directBytesMin)
	w := newFileWriter(int(file.Fd()), &size)
	// Without a buffer the bytes are where no disk can take them from.
	_ = syscall.Munmap(w.buffer)
	w.buffer = nil
	for _, piece := range []string{"odd", " bytes"} {
		if err := w.write([]byte(piece), func(int) {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	if written, err := os.ReadFile(file.Name()); err != nil || string(written) != "odd bytes" {
		t.Fatal(string(written), err)
	}
}

func openNew(t *testing.T) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func patterned(count int) []byte {
	made := make([]byte, count)
	for i := range made {
		made[i] = byte(i*7 + i>>8*13)
	}
	return made
}

func lower(a, b int) int {
	if a < b {
		return a
	}
	return b
}
