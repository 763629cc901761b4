// Reads one archive from a stream: the tree of a root file system, or an image with its layers, as `docker save` and
// the OCI layout have it. The archive's names tell which; a stream's compression is told by its first bytes.

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strconv"
)

const (
	documentBytesMax = 4 << 20
	archiveFilesMax  = 4096
)

// A file of an image's archive, which is kept under its number.
type archiveFile struct {
	Name   string `json:"name"`
	Number int64  `json:"number"`
	Size   int64  `json:"size"`
}

var magics = []struct {
	compression string
	bytes       []byte
}{
	{"gzip", []byte{0x1f, 0x8b}},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}},
	{"xz", []byte{0xfd, '7', 'z', 'X', 'Z', 0}},
	{"bzip2", []byte("BZh")},
}

// readStream merges a root file system into the tree, and tells the files of an image's archive.
func readStream(input *os.File, reader *layerReader, merged *tree, isTree bool) (isArchive bool, diffID string, err error) {
	all := &totals{limits: reader.limits}
	buffered := bufio.NewReaderSize(input, copyBytes)
	head, err := buffered.Peek(8)
	if err != nil && err != io.EOF {
		return false, "", err
	}
	about := layer{Size: reader.limits.CompressedBytes, Compression: "none"}
	for _, magic := range magics {
		if bytes.HasPrefix(head, magic.bytes) {
			about.Compression = magic.compression
		}
	}
	if about.Compression == "xz" || about.Compression == "bzip2" {
		return false, "", refuse("bad_compression", "the archive is compressed with %s; gzip and zstd are known",
			about.Compression)
	}
	opened, err := openLayer(buffered, 0, about, all)
	if err != nil {
		return false, "", err
	}
	entries, err := reader.read(opened.archive)
	if err == nil && len(entries) == 0 {
		err = refuse("bad_archive", "the archive is empty")
	}
	if err == nil {
		err = merged.merge(entries)
	}
	if err != nil {
		return false, "", err
	}
	if isTree || !isImage(merged.root, reader.contents) {
		return false, opened.archive.digest(), nil
	}
	files, err := filesOf(merged)
	if err != nil {
		return true, "", err
	}
	tell(message{Type: "archive", Files: files})
	return true, "", nil
}

// isImage looks for the documents that only an image's archive has at its top.
func isImage(root *node, contents *contents) bool {
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if readJSON(root.children["oci-layout"], contents, &layout) && layout.Version != "" {
		return true
	}
	var saved []struct{ Config string }
	return readJSON(root.children["manifest.json"], contents, &saved) && len(saved) > 0 && saved[0].Config != ""
}

func readJSON(from *node, contents *contents, into any) bool {
	if from == nil || from.kind != aFile || from.content.size > documentBytesMax {
		return false
	}
	if from.content.number == 0 {
		return false
	}
	text, err := os.ReadFile("content/" + strconv.FormatInt(from.content.number, 10))
	return err == nil && json.Unmarshal(text, into) == nil
}

// filesOf lists files with their paths. `docker save` has a layer that occurs twice as a link.
func filesOf(merged *tree) ([]archiveFile, error) {
	var files []archiveFile
	var list func(at *node, path string) error
	list = func(at *node, path string) error {
		for _, name := range at.names() {
			child := at.children[name]
			if len(files) == archiveFilesMax {
				return refuse("too_many_entries", "the image's archive has more than %d files", archiveFilesMax)
			}
			target := child
			if child.kind == aSymlink {
				target = merged.file(at, child.target)
			}
			switch {
			case child.kind == aFolder:
				if err := list(child, path+name+"/"); err != nil {
					return err
				}
			case target != nil && target.kind == aFile && target.content.number != 0:
				files = append(files, archiveFile{path + name, target.content.number, target.content.size})
			}
		}
		return nil
	}
	return files, list(merged.root, "")
}
