// Sparse files stay sparse in archives, in both directions.

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writeSparse writes random data at some places of a file of a size.
func writeSparse(t *testing.T, path string, size int64, offsets ...int64) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	random := rand.New(rand.NewSource(size))
	for _, offset := range offsets {
		piece := make([]byte, 5000)
		random.Read(piece)
		_, err := file.WriteAt(piece, offset)
		must(t, err)
	}
	must(t, file.Truncate(size))
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var about syscall.Stat_t
	must(t, syscall.Stat(path, &about))
	return about.Blocks * 512
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	must(t, err)
	return string(sum.Sum(nil))
}

func sparseTree(t *testing.T) (string, []string) {
	folder := filepath.Join(t.TempDir(), "tree")
	must(t, os.Mkdir(folder, 0o755))
	long := strings.Repeat("ü", 120)
	writeSparse(t, folder+"/middle", 16<<20, 0, 5<<20, 15<<20)
	writeSparse(t, folder+"/empty", 8<<20)
	writeSparse(t, folder+"/"+long, 4<<20+123, 4<<20-5000)
	writeSparse(t, folder+"/dense", 5000, 0)
	must(t, os.Link(folder+"/middle", folder+"/twin"), os.Chmod(folder+"/empty", 0o640))
	must(t, os.Chtimes(folder+"/empty", time.Unix(1e9, 0), time.Unix(1e9, 0)))
	if allocated(t, folder+"/middle") > 2<<20 {
		t.Skip("no sparse files here")
	}
	return folder, []string{"middle", "empty", long, "dense", "twin"}
}

func TestSparseFilesAreSparseInArchivesAndAfterThem(t *testing.T) {
	folder, names := sparseTree(t)
	h := personalised(t)
	packed := h.ask("archive_read", map[string]any{"path": folder, "sparse": true})
	if packed.Error != nil || len(packed.output) > 1<<20 || packed.OK["bytes"].(float64) != 16<<20+8<<20+4<<20+123+5000 {
		t.Fatalf("%d bytes, %+v", len(packed.output), packed.OK)
	}
	to := t.TempDir()
	if o := h.put("archive_write", map[string]any{"path": to}, packed.output); o.Error != nil {
		t.Fatalf("%+v", o.Error)
	}
	checkSparse(t, folder, to+"/tree", names)
	if tool, err := exec.LookPath("tar"); err == nil {
		other := t.TempDir()
		command := exec.Command(tool, "x", "-C", other)
		command.Stdin = bytes.NewReader(packed.output)
		if words, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, words)
		}
		checkSparse(t, folder, other+"/tree", names)
	}
	plain := h.ask("archive_read", map[string]any{"path": folder + "/empty"})
	reader := tar.NewReader(bytes.NewReader(plain.output))
	header, err := reader.Next()
	if err != nil || header.Name != "empty" || header.Size != 8<<20 || len(plain.output) < 8<<20 {
		t.Errorf("asked for without holes: %+v %v", header, err)
	}
}

func checkSparse(t *testing.T, from, to string, names []string) {
	t.Helper()
	for _, name := range names {
		one, other := filepath.Join(from, name), filepath.Join(to, name)
		var about, copied syscall.Stat_t
		must(t, syscall.Stat(one, &about), syscall.Stat(other, &copied))
		if about.Size != copied.Size || sumOf(t, one) != sumOf(t, other) {
			t.Errorf("%s is another file, of %d bytes", name, copied.Size)
		}
		if about.Mode != copied.Mode || about.Mtim.Sec != copied.Mtim.Sec {
			t.Errorf("%s: mode %o, time %v", name, copied.Mode, copied.Mtim)
		}
		if copied.Blocks > about.Blocks+512 {
			t.Errorf("%s takes %d blocks, not %d", name, copied.Blocks, about.Blocks)
		}
	}
}

func TestAWrittenFileHasHolesForItsZeros(t *testing.T) {
	folder, _ := sparseTree(t)
	h := personalised(t)
	content, err := os.ReadFile(folder + "/middle")
	must(t, err)
	for _, size := range []any{len(content), nil} {
		path := filepath.Join(t.TempDir(), "file")
		if o := h.put("file_write", map[string]any{"path": path, "size": size}, content); o.Error != nil {
			t.Fatalf("%+v", o.Error)
		}
		if sumOf(t, path) != sumOf(t, folder+"/middle") || allocated(t, path) > 2<<20 {
			t.Errorf("size %v: takes %d bytes", size, allocated(t, path))
		}
	}
	tail := filepath.Join(t.TempDir(), "tail")
	zeros := make([]byte, 3<<20+17)
	if o := h.put("file_write", map[string]any{"path": tail, "size": len(zeros)}, zeros); o.Error != nil {
		t.Fatalf("%+v", o.Error)
	}
	if got, err := os.ReadFile(tail); err != nil || !bytes.Equal(got, zeros) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
