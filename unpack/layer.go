// Reads a layer's tar archive: its contents go to the store, its entries to a list.

package main

import (
	"archive/tar"
	"errors"
	"io"
	"math"
	"strings"
)

const (
	// textBytesMax limits names, targets and attributes of all layers, which are kept in memory.
	textBytesMax = 512 << 20
	// ext4's range of times.
	secondsMin = math.MinInt32
	secondsMax = math.MaxInt32 + 3<<32
	majorMax   = 1<<12 - 1
	minorMax   = 1<<20 - 1
)

type layerReader struct {
	contents *contents
	limits   limits
	entries  int
	text     int64
	leftOut  int
}

func (r *layerReader) read(input io.Reader) ([]entry, error) {
	archive := tar.NewReader(input)
	var entries []entry
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, archiveError(err)
		}
		one, isEntry, err := r.entryOf(header)
		if err != nil {
			return nil, err
		}
		if !isEntry {
			continue
		}
		if err := r.count(header); err != nil {
			return nil, err
		}
		if one.inode.kind == aFile {
			if one.inode.content, err = r.contents.add(archive, header.Size); err != nil {
				return nil, archiveError(err)
			}
		}
		entries = append(entries, one)
	}
	// The archive is followed by padding, which belongs to its digest.
	if _, err := io.Copy(io.Discard, input); err != nil {
		return nil, archiveError(err)
	}
	return entries, nil
}

func (r *layerReader) count(header *tar.Header) error {
	if r.entries++; r.entries > r.limits.Entries {
		return refuse("too_many_entries", "the image has more than %d files", r.limits.Entries)
	}
	r.text += int64(len(header.Name) + len(header.Linkname))
	for name, value := range header.PAXRecords {
		r.text += int64(len(name) + len(value))
	}
	if r.text > textBytesMax {
		return refuse("too_many_entries", "the names of the image's files take more than %d bytes", textBytesMax)
	}
	return nil
}

var kinds = map[byte]kind{
	tar.TypeReg: aFile, tar.TypeRegA: aFile, tar.TypeCont: aFile, tar.TypeGNUSparse: aFile,
	tar.TypeLink: aLink, tar.TypeSymlink: aSymlink, tar.TypeDir: aFolder,
	tar.TypeChar: aChar, tar.TypeBlock: aBlock, tar.TypeFifo: aPipe,
}

// entryOf reports false for records that are no file, and for kinds of files that a disk cannot hold.
func (r *layerReader) entryOf(header *tar.Header) (one entry, isEntry bool, err error) {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return one, false, nil
	}
	what, isKnown := kinds[header.Typeflag]
	if !isKnown {
		r.leftOut++
		return one, false, nil
	}
	if one.path, err = pathOf(header.Name); err != nil {
		return one, false, err
	}
	one.inode = inode{kind: what, mode: uint32(header.Mode) & 0o7777}
	if one.inode.uid, err = ownerOf(header.Uid, header.Name); err != nil {
		return one, false, err
	}
	if one.inode.gid, err = ownerOf(header.Gid, header.Name); err != nil {
		return one, false, err
	}
	one.inode.seconds, one.inode.nanoseconds = clamp(header.ModTime.Unix()), uint32(header.ModTime.Nanosecond())
	switch what {
	case aLink:
		if one.linkTo, err = pathOf(header.Linkname); err != nil {
			return one, false, err
		}
		return one, true, nil
	case aSymlink:
		if header.Linkname == "" || len(header.Linkname) > pathBytesMax {
			return one, false, refuse("bad_link", "%q is a link with a target of %d bytes", header.Name, len(header.Linkname))
		}
		one.inode.target, one.inode.mode = header.Linkname, 0o777
	case aChar, aBlock:
		if header.Devmajor < 0 || header.Devmajor > majorMax || header.Devminor < 0 || header.Devminor > minorMax {
			return one, false, refuse("bad_device", "%q is a device with the numbers %d and %d", header.Name,
				header.Devmajor, header.Devminor)
		}
		one.inode.major, one.inode.minor = uint32(header.Devmajor), uint32(header.Devminor)
	}
	one.inode.attributes, err = attributesOf(header.PAXRecords, what, header.Name)
	return one, true, err
}

// pathOf splits a name. An absolute one is taken as below the root, as other programs do.
func pathOf(name string) ([]string, error) {
	var path []string
	for _, part := range strings.Split(name, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			return nil, refuse("bad_path", "the name %.200q leads upwards", name)
		case len(part) > nameBytesMax:
			return nil, refuse("name_too_long", "the name %.200q... is longer than %d bytes", part, nameBytesMax)
		default:
			path = append(path, part)
		}
	}
	if len(name) > 2*pathBytesMax {
		return nil, refuse("name_too_long", "the path %.200q... is longer than %d bytes", name, pathBytesMax)
	}
	return path, nil
}

func ownerOf(id int, name string) (uint32, error) {
	// The largest number means "no user" to the kernel.
	if id < 0 || int64(id) >= math.MaxUint32 {
		return 0, refuse("bad_owner", "%.200q belongs to the user or group id %d", name, id)
	}
	return uint32(id), nil
}

func clamp(seconds int64) int64 {
	switch {
	case seconds < secondsMin:
		return secondsMin
	case seconds > secondsMax:
		return secondsMax
	}
	return seconds
}

func archiveError(err error) error {
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return err
	case err == io.ErrUnexpectedEOF:
		return refuse("truncated", "the archive ends in the middle of a file")
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return refuse("bad_archive", "this is no tar archive, or a damaged one")
	}
	return err
}
