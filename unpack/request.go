// The caller's request, from the file request.json of its directory. The caller is trusted, the blobs are not.

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
)

type request struct {
	// Parent is the process id of the caller, with whom everything here ends.
	Parent int `json:"parent"`
	// UID is the user id that the work is done as; not used unless the caller is root.
	UID int `json:"uid"`
	// Layout is a directory of the OCI layout. Without it the archive comes on standard input.
	Layout string  `json:"layout"`
	Layers []layer `json:"layers"`
	Limits limits  `json:"limits"`
	// ID is 32 hexadecimal digits, from which the identity of the file system follows; of an archive's own digest if
	// empty.
	ID string `json:"id"`
	// IsTree: the archive is that of a root file system, whatever is in it.
	IsTree bool `json:"is_tree"`
	packing
}

type layer struct {
	Digest      string `json:"digest"` // hexadecimal, SHA-256
	Size        int64  `json:"size"`
	DiffID      string `json:"diff_id"`
	Compression string `json:"compression"` // none, gzip or zstd
}

type limits struct {
	CompressedBytes int64 `json:"compressed_bytes"`
	UnpackedBytes   int64 `json:"unpacked_bytes"`
	Entries         int   `json:"entries"`
	Depth           int   `json:"depth"`
	Ratio           int64 `json:"ratio"`
	FreeBytes       int64 `json:"free_bytes"`
	MemoryBytes     int64 `json:"memory_bytes"`
	Seconds         int64 `json:"seconds"`
	// DiskBytes is for a disk that is packed.
	DiskBytes int64 `json:"disk_bytes"`
}

func readRequest(directory string) (request, error) {
	var wanted request
	text, err := os.ReadFile(filepath.Join(directory, "request.json"))
	if err == nil {
		err = json.Unmarshal(text, &wanted)
	}
	return wanted, err
}
