// Any bytes as a layer, and any entries as layers: they are refused, or the tree is whole and nothing else has
// changed.
//
// `go test` runs the examples; `go test -fuzz FuzzLayer` and `-fuzz FuzzMerge` look for more.

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
)

var testLimits = limits{
	CompressedBytes: 1 << 20, UnpackedBytes: 1 << 20, Entries: 500, Depth: 20, Ratio: 500,
}

func exampleLayer(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, header := range headers {
		header := header
		header.Mode = 0o755
		if header.Typeflag == tar.TypeReg {
			header.Size = 5
		}
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(writer, "hello"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func FuzzLayer(f *testing.F) {
	f.Add(exampleLayer(f, tar.Header{Name: "a/b", Typeflag: tar.TypeReg}, tar.Header{Name: "a/.wh.b", Typeflag: tar.TypeReg}))
	f.Add(exampleLayer(f, tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "../../outside"},
		tar.Header{Name: "x/canary", Typeflag: tar.TypeReg}, tar.Header{Name: "y", Typeflag: tar.TypeLink, Linkname: "x/canary"}))
	f.Add(exampleLayer(f, tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		tar.Header{Name: "pipe", Typeflag: tar.TypeFifo}, tar.Header{Name: "d/", Typeflag: tar.TypeDir}))
	f.Add(exampleLayer(f, tar.Header{
		Name: strings.Repeat("n", 200), Typeflag: tar.TypeReg,
		PAXRecords: map[string]string{"SCHILY.xattr.user.x": "value", "mtime": "1.5"}, Format: tar.FormatPAX,
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		base := t.TempDir()
		folders := map[string]int{}
		for _, name := range []string{"outside", "content", "tree"} {
			path := filepath.Join(base, name)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Close(fd)
			folders[name] = fd
		}
		canary := filepath.Join(base, "outside", "canary")
		if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := unpackInto(data, folders)
		var refused *refusal
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("neither unpacked nor refused: %v", err)
		}
		if text, err := os.ReadFile(canary); err != nil || string(text) != "untouched" {
			t.Errorf("the file outside has changed: %q %v", text, err)
		}
		for folder, want := range map[string]string{".": "content outside tree", "outside": "canary"} {
			if found := namesIn(t, filepath.Join(base, folder)); found != want {
				t.Errorf("%s holds %s", folder, found)
			}
		}
	})
}

func unpackInto(data []byte, folders map[string]int) error {
	contents := &contents{folder: folders["content"], limits: testLimits}
	reader := &layerReader{contents: contents, limits: testLimits}
	merged := newTree(testLimits, contents.remove)
	// Twice, since a second layer meets what the first has left.
	for round := 0; round < 2; round++ {
		entries, err := reader.read(bytes.NewReader(data))
		if err == nil {
			err = merged.merge(entries)
		}
		if err != nil {
			return err
		}
	}
	return (&placer{contents: contents}).place(folders["tree"], merged.root)
}

func namesIn(t *testing.T, folder string) string {
	t.Helper()
	found, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, one := range found {
		names = append(names, one.Name())
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

// Each entry is made of four bytes: its kind, two parts of its name, and what a link leads to. 0xff begins a layer.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("\x00\x00\x01\x00\x01\x01\x02\x00\xff\x02\x03\x04\x00"))
	f.Add([]byte("\x04\x00\x06\x01\x04\x01\x06\x00\x00\x00\x06\x00\xff\x00\x05\x06\x00\x03\x00\x02\x07"))
	f.Fuzz(func(t *testing.T, data []byte) {
		gone := map[int64]bool{}
		merged := newTree(testLimits, func(one content) { gone[one.number] = true })
		var entries []entry
		last := int64(0)
		for len(data) >= 4 {
			if data[0] == 0xff {
				if merged.merge(entries) != nil {
					return
				}
				entries, data = nil, data[1:]
				continue
			}
			one := madeEntry(data)
			if one.inode.kind == aFile {
				last++
				one.inode.content = content{number: last, size: 1}
			}
			entries, data = append(entries, one), data[4:]
		}
		if merged.merge(entries) != nil {
			return
		}
		checkTree(t, merged, gone)
	})
}

var (
	madeParts   = []string{"", "a", "b", ".wh.a", ".wh.b", ".wh..wh..opq", "c", ".."}
	madeTargets = []string{"a", "/b", "..", "a/b", "c/a", "../../c", ".", "b/"}
	madeKinds   = []kind{aFile, aFolder, aSymlink, aLink, aLink, aChar, aPipe, aFolder}
)

func madeEntry(data []byte) (one entry) {
	for _, at := range data[1:3] {
		if part := madeParts[int(at)%len(madeParts)]; part != "" && part != ".." {
			one.path = append(one.path, part)
		}
	}
	target := madeTargets[int(data[3])%len(madeTargets)]
	one.inode.kind = madeKinds[int(data[0])%len(madeKinds)]
	one.inode.target = target
	if linkTo, err := pathOf(target); err == nil {
		one.linkTo = linkTo
	}
	return one
}

// checkTree looks at what must hold for every tree.
func checkTree(t *testing.T, merged *tree, gone map[int64]bool) {
	t.Helper()
	names := map[*inode]int{}
	var visit func(at *node)
	visit = func(at *node) {
		names[at.inode]++
		if at.kind != aFolder && at.children != nil || at.kind == aFolder && at.children == nil {
			t.Errorf("%q is of the wrong kind for its children", at.path())
		}
		for name, child := range at.children {
			if name == "" || name == "." || name == ".." || strings.Contains(name, "/") || isWhiteout([]string{name}) {
				t.Errorf("the name %q is in the tree", name)
			}
			if child.parent != at || child.depth != at.depth+1 || child.depth > merged.limits.Depth {
				t.Errorf("%q is not where it should be", child.path())
			}
			visit(child)
		}
	}
	visit(merged.root)
	for one, count := range names {
		if one.links != count {
			t.Errorf("an entry of kind %c has %d names and counts %d", one.kind, count, one.links)
		}
		if one.kind == aLink {
			t.Error("a hard link is in the tree as an entry of its own")
		}
		if gone[one.content.number] && one.content.number != 0 {
			t.Errorf("the content %d is removed and used", one.content.number)
		}
	}
}
