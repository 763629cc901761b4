// The page cache after large archives were read and written.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func cachedAt(t *testing.T, path string) bool {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	return isCached(int(file.Fd()), 4096)
}

func uncache(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	must(t, syscall.Fsync(int(file.Fd())))
	dropCached(int(file.Fd()), 0, 0)
}

func TestALargeArchiveLeavesTheCacheAsItWas(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tree")
	must(t, os.Mkdir(folder, 0o755))
	content := make([]byte, 2<<20)
	for i := range content {
		content[i] = byte(i*7 + i>>9)
	}
	const files = 24
	at := func(i int) string { return fmt.Sprintf("%s/%02d", folder, i) }
	for i := 0; i < files; i++ {
		must(t, os.WriteFile(at(i), content, 0o644))
		uncache(t, at(i))
	}
	if cachedAt(t, at(0)) {
		t.Skip("this filesystem is a cache")
	}
	_, err := os.ReadFile(at(files - 1))
	must(t, err)
	h := personalised(t)
	packed := h.ask("archive_read", map[string]any{"path": folder})
	if packed.Error != nil {
		t.Fatalf("%+v", packed.Error)
	}
	count := 0
	for i := 0; i < files-1; i++ {
		if cachedAt(t, at(i)) {
			count++
		}
	}
	if count > cachedBytesMax/len(content)+2 {
		t.Errorf("%d of %d read files are in the cache", count, files-1)
	}
	if !cachedAt(t, at(files-1)) {
		t.Error("a file that was in the cache has left it")
	}
	to := t.TempDir()
	if o := h.put("archive_write", map[string]any{"path": to}, packed.output); o.Error != nil {
		t.Fatalf("%+v", o.Error)
	}
	count = 0
	for i := 0; i < files; i++ {
		path := fmt.Sprintf("%s/tree/%02d", to, i)
		if cachedAt(t, path) {
			count++
		}
		if about, err := os.Stat(path); err != nil || about.Size() != int64(len(content)) {
			t.Errorf("%v %v", about, err)
		}
	}
	if count > cachedBytesMax/len(content)+2 {
		t.Errorf("%d of %d written files are in the cache", count, files)
	}
}
