// Sparse files in archives: only their data is packed, with a map of where it belongs, in the format PAX 1.0 of GNU
// tar, which Go's reader and other tar programs know.
//
// Go's writer cannot write it, so the headers of such a file are made here.

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"sort"
	"strconv"
	"syscall"
)

const (
	seekData = 3
	seekHole = 4
	// sparseBytesMin is the size of all holes that is worth a map.
	sparseBytesMin = 65536
	// extentsMax limits a map; a file in more pieces is packed as it reads.
	extentsMax    = 65536
	tarBlockBytes = 512
)

// dataExtents returns where a file has data, ascending; false if it is not worth a map, or its filesystem cannot tell.
func dataExtents(fd int, about *syscall.Stat_t) ([]dataExtent, bool) {
	if about.Size-about.Blocks*512 < sparseBytesMin {
		return nil, false
	}
	var extents []dataExtent
	for at := int64(0); at < about.Size; {
		start, err := syscall.Seek(fd, at, seekData)
		if err == syscall.ENXIO {
			break // Only a hole is left.
		}
		if err != nil {
			return nil, false
		}
		end, err := syscall.Seek(fd, start, seekHole)
		if err != nil || len(extents) == extentsMax {
			return nil, false
		}
		if end > about.Size {
			end = about.Size
		}
		if start < end {
			extents = append(extents, dataExtent{start, end - start})
		}
		at = end
	}
	// GNU tar takes the end of the last one for the end of the file.
	extents = append(extents, dataExtent{about.Size, 0})
	_, err := syscall.Seek(fd, 0, io.SeekStart)
	return extents, err == nil
}

type dataExtent struct{ offset, length int64 }

// addSparse packs a file's data.
func (p *packer) addSparse(fd int, header *tar.Header, extents []dataExtent) error {
	table, dataBytes := extentTable(extents)
	records := map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
		"GNU.sparse.name": header.Name, "GNU.sparse.realsize": strconv.FormatInt(header.Size, 10),
	}
	for key, value := range header.PAXRecords {
		records[key] = value
	}
	stored := int64(len(table)) + dataBytes
	if err := p.output.Flush(); err != nil {
		return err
	}
	if _, err := p.raw.Write(sparseHeader(header, records, stored)); err != nil {
		return err
	}
	if _, err := p.raw.Write(table); err != nil {
		return err
	}
	size := header.Size
	for _, extent := range extents {
		if err := p.copyExtent(fd, header.Name, extent); err != nil {
			return err
		}
	}
	p.result.Entries++
	p.result.Bytes += size
	_, err := p.raw.Write(make([]byte, padding(stored)))
	return err
}

func (p *packer) copyExtent(fd int, name string, extent dataExtent) error {
	if p.stream.isCancelled() {
		return errGivenUp
	}
	if _, err := syscall.Seek(fd, extent.offset, io.SeekStart); err != nil {
		return err
	}
	return p.copy(fd, name, extent.length, p.raw)
}

// extentTable is the map before the data: the number of extents, then offset and length of each, in whole blocks.
func extentTable(extents []dataExtent) ([]byte, int64) {
	var table bytes.Buffer
	total := int64(0)
	fmt.Fprintf(&table, "%d\n", len(extents))
	for _, extent := range extents {
		fmt.Fprintf(&table, "%d\n%d\n", extent.offset, extent.length)
		total += extent.length
	}
	table.Write(make([]byte, padding(int64(table.Len()))))
	return table.Bytes(), total
}

func padding(size int64) int64 { return -size & (tarBlockBytes - 1) }

// sparseHeader makes the two headers of a sparse file. Programs that do not know the format see a file of another name.
func sparseHeader(header *tar.Header, records map[string]string, stored int64) []byte {
	for key, value := range map[string]int64{"uid": int64(header.Uid), "gid": int64(header.Gid), "size": stored} {
		if value >= 1<<21 && (key != "size" || value >= 1<<33) {
			records[key] = strconv.FormatInt(value, 10)
		}
	}
	mtime := header.ModTime.Unix()
	if mtime < 0 || mtime >= 1<<33 {
		records["mtime"] = strconv.FormatInt(mtime, 10)
		mtime = 0
	}
	var text bytes.Buffer
	for _, key := range sortedKeys(records) {
		text.WriteString(paxRecord(key, records[key]))
	}
	pax := tarHeader{name: "PaxHeaders.0/sparse", typeflag: tar.TypeXHeader, size: int64(text.Len()), mode: 0o644}
	text.Write(make([]byte, padding(int64(text.Len()))))
	name := path.Base(header.Name)
	if len(name) > 60 {
		name = name[:60]
	}
	file := tarHeader{
		name: "GNUSparseFile.0/" + name, typeflag: tar.TypeReg, size: stored, mode: header.Mode, mtime: mtime,
		uid: int64(header.Uid), gid: int64(header.Gid),
	}
	return append(append(pax.block(), text.Bytes()...), file.block()...)
}

func sortedKeys(records map[string]string) []string {
	keys := make([]string, 0, len(records))
	for key := range records {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// paxRecord begins with its own length.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	length := len(rest)
	for length != len(rest)+len(strconv.Itoa(length)) {
		length = len(rest) + len(strconv.Itoa(length))
	}
	return strconv.Itoa(length) + rest
}

// tarHeader has the fields of a ustar header that need no extension.
type tarHeader struct {
	name                        string
	typeflag                    byte
	mode, uid, gid, size, mtime int64
}

func (h tarHeader) block() []byte {
	block := make([]byte, tarBlockBytes)
	copy(block, h.name)
	// A record has the values that do not fit.
	octal := func(at, digits int, value int64) {
		copy(block[at:], fmt.Sprintf("%0*o", digits, value&(1<<(3*uint(digits))-1)))
	}
	octal(100, 7, h.mode)
	octal(108, 7, h.uid)
	octal(116, 7, h.gid)
	octal(124, 11, h.size)
	octal(136, 11, h.mtime)
	block[156] = h.typeflag
	copy(block[257:], "ustar\x0000")
	copy(block[148:], "        ")
	sum := int64(0)
	for _, one := range block {
		sum += int64(one)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	return block
}
