// The other direction: a disk in, the tar archive of its tree out. The archive is a layer with everything that ext4
// keeps.

package main

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

const (
	layerFile = "layer.tar"
	flatFile  = "source.raw"
)

// A packing says which disk is packed, and what of it is left out.
type packing struct {
	// Sources are the files of the disk, newest first; none: nothing is packed.
	Sources []sourceFile `json:"sources"`
	// Omitted are patterns of paths without a slash at their beginning, as path.Match has them.
	Omitted []string `json:"omitted"`
	// Emptied are files that lose their content.
	Emptied []string `json:"emptied"`
	// OmittedLinks are symbolic links that are left out if they have this target.
	OmittedLinks []omittedLink `json:"omitted_links"`
}

type omittedLink struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

func (p *packing) isOmitted(name string) bool {
	for _, pattern := range p.Omitted {
		if isMatch, err := path.Match(pattern, name); err == nil && isMatch {
			return true
		}
	}
	return false
}

func (p *packing) isEmptied(name string) bool {
	for _, one := range p.Emptied {
		if one == name {
			return true
		}
	}
	return false
}

func (p *packing) isOmittedLink(name, target string) bool {
	for _, one := range p.OmittedLinks {
		if one.Path == name && one.Target == target {
			return true
		}
	}
	return false
}

func packDisk(wanted request) error {
	store, err := syscall.Open(".", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	disk, err := openDisk(wanted, &contents{folder: store, limits: wanted.Limits})
	if err != nil {
		return err
	}
	out, err := os.OpenFile(layerFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(out, sum), copyBytes)
	p := packer{
		disk: disk, about: &wanted.packing, limits: wanted.Limits, output: tar.NewWriter(buffered),
		packed: map[uint32]string{}, buffer: make([]byte, copyBytes), store: &contents{folder: store, limits: wanted.Limits},
	}
	if err := p.packFolder(rootInode, "", 0); err != nil {
		return err
	}
	if err := p.output.Close(); err != nil {
		return spaceError(err)
	}
	if err := buffered.Flush(); err != nil {
		return spaceError(err)
	}
	tell(message{
		Type: "done", Bytes: p.bytes, Entries: p.entries, LeftOut: p.leftOut, ID: hex.EncodeToString(sum.Sum(nil)),
	})
	return nil
}

// openDisk returns the file system of a single clean file as it is. Any other is first made one file, whose journal
// e2fsck replays.
func openDisk(wanted request, store *contents) (*ext4, error) {
	chain, err := openChain(wanted.Sources, func(index int) *os.File {
		return os.NewFile(uintptr(firstBlob+index), "disk")
	})
	if err != nil {
		return nil, err
	}
	if len(chain) == 1 && wanted.Sources[0].Format == "raw" {
		if found, err := openExt4(chain[0].file()); err == nil && !found.isDirty {
			return found, nil
		}
	}
	flat, err := os.OpenFile(flatFile, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flatten(chain, flat, store); err != nil {
		return nil, err
	}
	const wasRepaired = 1
	if _, err := runTool(nil, wasRepaired, "e2fsck", "-f", "-y", flatFile); err != nil {
		return nil, err
	}
	found, err := openExt4(flat)
	if err == nil && found.isDirty {
		err = badDisk("its journal cannot be replayed")
	}
	return found, err
}

type packer struct {
	disk    *ext4
	about   *packing
	limits  limits
	output  *tar.Writer
	store   *contents
	packed  map[uint32]string // the first name of files with several
	buffer  []byte
	bytes   int64
	entries int
	leftOut int
}

func (p *packer) packFolder(number uint32, name string, depth int) error {
	if depth > p.limits.Depth {
		return refuse("too_deep", "%.200q lies below more than %d directories", name, p.limits.Depth)
	}
	raw, err := p.disk.inode(number)
	if err != nil {
		return err
	}
	header, err := p.headerOf(raw, name+"/", tar.TypeDir)
	if err != nil {
		return err
	}
	if name == "" {
		header.Name = "./"
	}
	if err := p.write(header); err != nil {
		return err
	}
	names, err := p.disk.namesOf(raw)
	if err != nil {
		return err
	}
	for _, child := range names {
		full := path.Join(name, child.name)
		if name == "" && child.name == "lost+found" || p.about.isOmitted(full) {
			continue
		}
		// A layer has no other meaning for such a name than that of a file removed.
		if strings.HasPrefix(child.name, whiteoutPrefix) {
			p.leftOut++
			continue
		}
		if err := p.packOne(child.number, full, depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) packOne(number uint32, name string, depth int) error {
	raw, err := p.disk.inode(number)
	if err != nil {
		return err
	}
	format := little.Uint16(raw[modeAt:]) & formatMask
	if format == formatDir {
		return p.packFolder(number, name, depth+1)
	}
	if first, isPacked := p.packed[number]; isPacked {
		return p.write(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Format: tar.FormatPAX})
	}
	if little.Uint16(raw[linksAt:]) > 1 {
		p.packed[number] = name
	}
	switch format {
	case formatFile:
		return p.packFile(raw, name)
	case formatLink:
		target, err := p.disk.targetOf(raw, p.buffer)
		if err != nil {
			return err
		}
		if p.about.isOmittedLink(name, target) {
			delete(p.packed, number)
			return nil
		}
		header, err := p.headerOf(raw, name, tar.TypeSymlink)
		if err != nil {
			return err
		}
		header.Linkname = target
		return p.write(header)
	case formatChar, formatBlock, formatPipe:
		kind := map[uint16]byte{formatChar: tar.TypeChar, formatBlock: tar.TypeBlock, formatPipe: tar.TypeFifo}[format]
		header, err := p.headerOf(raw, name, kind)
		if err != nil {
			return err
		}
		if format != formatPipe {
			header.Devmajor, header.Devminor = deviceOf(raw)
		}
		return p.write(header)
	}
	p.leftOut++
	delete(p.packed, number)
	return nil
}

func (p *packer) packFile(raw []byte, name string) error {
	header, err := p.headerOf(raw, name, tar.TypeReg)
	if err != nil {
		return err
	}
	if header.Size = sizeOfInode(raw); p.about.isEmptied(name) {
		header.Size = 0
	}
	if header.Size < 0 || header.Size > p.limits.UnpackedBytes-p.bytes {
		return refuse("too_many_bytes", "its files have more than %d bytes", p.limits.UnpackedBytes)
	}
	p.bytes += header.Size
	if err := p.write(header); err != nil {
		return err
	}
	if header.Size > 0 {
		if err := p.disk.copyContent(raw, p.output, p.buffer); err != nil {
			return spaceError(err)
		}
	}
	return p.store.checkSpace(header.Size)
}

func (p *packer) write(header *tar.Header) error {
	if p.entries++; p.entries > p.limits.Entries {
		return refuse("too_many_entries", "the disk has more than %d files", p.limits.Entries)
	}
	return spaceError(p.output.WriteHeader(header))
}

func (p *packer) headerOf(raw []byte, name string, kind byte) (*tar.Header, error) {
	attributes, err := p.disk.attributesOf(raw)
	if err != nil {
		return nil, err
	}
	more := uint32(0)
	if len(raw) >= modifiedMoreAt+4 && int(little.Uint16(raw[extraSizeAt:])) >= modifiedMoreAt+4-extraSizeAt {
		more = little.Uint32(raw[modifiedMoreAt:])
	}
	seconds := int64(int32(little.Uint32(raw[inodeModifiedAt:]))) + int64(more&3)<<32
	header := &tar.Header{
		Typeflag: kind, Name: name, Mode: int64(little.Uint16(raw[modeAt:]) & 0o7777), Format: tar.FormatPAX,
		Uid:     int(little.Uint16(raw[uidAt:])) | int(little.Uint16(raw[uidHighAt:]))<<16,
		Gid:     int(little.Uint16(raw[gidAt:])) | int(little.Uint16(raw[gidHighAt:]))<<16,
		ModTime: time.Unix(seconds, int64(more>>2)),
	}
	for attribute, value := range attributes {
		// A record of an archive ends its name with that.
		if strings.Contains(attribute, "=") || value == "" && (attribute == accessList || attribute == defaultList) {
			p.leftOut++
			continue
		}
		if header.PAXRecords == nil {
			header.PAXRecords = map[string]string{}
		}
		header.PAXRecords[paxAttribute+attribute] = value
	}
	return header, nil
}
