// The work: blobs in, a disk out. It runs without any right; descriptors 3 and up are the blobs, in the layers'
// order.

package main

import (
	"os"
	"path/filepath"
	"syscall"
)

const (
	firstBlob   = 3
	requestPath = "/tools/request.json"
)

func work() error {
	if err := filterCalls(); err != nil {
		return err
	}
	wanted, err := readRequest(filepath.Dir(requestPath))
	if err != nil {
		return err
	}
	if err := os.Chdir("/work"); err != nil {
		return err
	}
	if len(wanted.Sources) > 0 {
		return packDisk(wanted)
	}
	for _, name := range []string{"content", "tree", "notes"} {
		if err := os.Mkdir(name, 0o700); err != nil {
			return err
		}
	}
	store, err := syscall.Open("content", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	contents := &contents{folder: store, limits: wanted.Limits}
	reader := &layerReader{contents: contents, limits: wanted.Limits}
	merged := newTree(wanted.Limits, contents.remove)
	if wanted.Layout == "" {
		isArchive, diffID, err := readStream(os.Stdin, reader, merged, wanted.IsTree)
		if err != nil || isArchive {
			return err
		}
		wanted.ID = diffID
	} else if err := readLayers(wanted, reader, merged); err != nil {
		return err
	}
	return makeDisk(wanted, reader, merged)
}

func readLayers(wanted request, reader *layerReader, merged *tree) error {
	all := &totals{limits: wanted.Limits}
	for index, about := range wanted.Layers {
		file := os.NewFile(uintptr(firstBlob+index), about.Digest)
		opened, err := openLayer(file, index, about, all)
		var entries []entry
		if err == nil {
			entries, err = reader.read(opened.archive)
		}
		if opened != nil {
			err = opened.finish(err)
		}
		file.Close()
		if err == nil {
			err = merged.merge(entries)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func makeDisk(wanted request, reader *layerReader, merged *tree) error {
	contents := reader.contents
	if err := contents.needSpace(contents.stored); err != nil {
		return err
	}
	root, err := syscall.Open("tree", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	placer := &placer{contents: contents}
	if err := placer.place(root, merged.root); err != nil {
		return err
	}
	bytes, inodes := sizeOf(contents.stored, len(placer.table))
	made := &disk{file: "disk.raw", tree: "tree", notes: "notes", table: placer.table, id: wanted.ID}
	if err := made.make(bytes, inodes, merged.hasLargeFolder()); err != nil {
		return err
	}
	total := int64(0)
	for _, one := range placer.table {
		total += one.content.size
	}
	tell(message{
		Type: "done", Bytes: total, Entries: len(placer.table), LeftOut: reader.leftOut, DiskBytes: bytes,
		ID: wanted.ID,
	})
	return nil
}
