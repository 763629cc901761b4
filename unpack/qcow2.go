// Reads a disk that is a chain of files, newest first: QEMU's overlays, and a raw file below them. A file's own header
// does not say what lies below it, the caller does. QEMU has written the overlays, but perhaps for a guest that had
// broken it, so each number in them is checked.

package main

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
)

const (
	overlayMagic    = 0x514649fb // "QFI" and 0xfb
	clusterBitsMin  = 9
	clusterBitsMax  = 21
	overlayTableMax = 32 << 20
	offsetMask      = 0x00fffffffffffe00
	isCompressed    = 1 << 62
	isZeros         = 1
	// Dirty counts of references do not matter to a reader.
	incompatibleKnown = 1
	seekData          = 3
	seekHole          = 4
)

var errNoOverlay = refuse("bad_disk", "a file of the sandbox's disk is damaged")

// A diskLayer is one file of the chain. Its find returns where the data of a place is, and how many bytes from there on
// are alike; at is -1 if the layer below has them, and -2 for zeros.
type diskLayer interface {
	find(place int64) (at, count int64, err error)
	file() *os.File
	size() int64
}

const (
	isBelow = -1
	isHole  = -2
)

type overlay struct {
	from        *os.File
	bytes       int64
	clusterBits uint
	table       []uint64
	// second is the table of the second level that was read last, of entry `loaded` of the first.
	second []byte
	loaded int64
}

func openOverlay(from *os.File) (*overlay, error) {
	head := make([]byte, 104)
	if _, err := from.ReadAt(head, 0); err != nil {
		return nil, errNoOverlay
	}
	big := binary.BigEndian
	version, bits, bytes := big.Uint32(head[4:]), big.Uint32(head[20:]), big.Uint64(head[24:])
	isKnown := version == 2 || version == 3 && big.Uint64(head[72:])&^incompatibleKnown == 0
	if big.Uint32(head) != overlayMagic || !isKnown || big.Uint32(head[32:]) != 0 {
		return nil, errNoOverlay
	}
	entries, at := int64(big.Uint32(head[36:])), big.Uint64(head[40:])
	if bits < clusterBitsMin || bits > clusterBitsMax || entries*8 > overlayTableMax || bytes > 1<<62 || at > 1<<62 {
		return nil, errNoOverlay
	}
	raw := make([]byte, entries*8)
	if _, err := from.ReadAt(raw, int64(at)); err != nil {
		return nil, errNoOverlay
	}
	made := &overlay{from: from, bytes: int64(bytes), clusterBits: uint(bits), loaded: -1}
	for ; len(raw) > 0; raw = raw[8:] {
		made.table = append(made.table, big.Uint64(raw))
	}
	return made, nil
}

func (o *overlay) file() *os.File { return o.from }
func (o *overlay) size() int64    { return o.bytes }

func (o *overlay) find(place int64) (int64, int64, error) {
	cluster := int64(1) << o.clusterBits
	inCluster := place & (cluster - 1)
	perTable := cluster / 8
	index := place >> o.clusterBits
	first := index / perTable
	if first >= int64(len(o.table)) {
		return 0, 0, errNoOverlay
	}
	if o.table[first]&offsetMask == 0 {
		return isBelow, (first+1)*perTable<<o.clusterBits - place, nil
	}
	if o.loaded != first {
		o.second = make([]byte, cluster)
		if _, err := o.from.ReadAt(o.second, int64(o.table[first]&offsetMask)); err != nil {
			return 0, 0, errNoOverlay
		}
		o.loaded = first
	}
	entry := binary.BigEndian.Uint64(o.second[index%perTable*8:])
	switch {
	case entry&isCompressed != 0:
		return 0, 0, errNoOverlay
	case entry&isZeros != 0:
		return isHole, cluster - inCluster, nil
	case entry&offsetMask == 0:
		return isBelow, cluster - inCluster, nil
	}
	return int64(entry&offsetMask) + inCluster, cluster - inCluster, nil
}

type rawLayer struct {
	from  *os.File
	bytes int64
	// data has the end of a piece of data that begins at or before `dataFrom`.
	dataFrom, dataTo int64
}

func (r *rawLayer) file() *os.File { return r.from }
func (r *rawLayer) size() int64    { return r.bytes }

func (r *rawLayer) find(place int64) (int64, int64, error) {
	if place >= r.bytes {
		return isHole, 1 << 62, nil
	}
	if place >= r.dataFrom && place < r.dataTo {
		return place, r.dataTo - place, nil
	}
	start, err := r.from.Seek(place, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return isHole, r.bytes - place, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if start > place {
		return isHole, start - place, nil
	}
	end, err := r.from.Seek(place, seekHole)
	if err != nil {
		return 0, 0, err
	}
	r.dataFrom, r.dataTo = place, end
	return place, end - place, nil
}

type sourceFile struct {
	Path   string `json:"path"`
	Format string `json:"format"` // raw or qcow2
}

// openChain opens the files that the caller names, from the descriptors that it has handed over.
func openChain(sources []sourceFile, fileOf func(index int) *os.File) ([]diskLayer, error) {
	var chain []diskLayer
	for index, about := range sources {
		file := fileOf(index)
		if about.Format == "qcow2" {
			one, err := openOverlay(file)
			if err != nil {
				return nil, err
			}
			chain = append(chain, one)
			continue
		}
		found, err := file.Stat()
		if err != nil {
			return nil, err
		}
		chain = append(chain, &rawLayer{from: file, bytes: found.Size()})
	}
	if len(chain) == 0 {
		return nil, errors.New("no disk was given")
	}
	return chain, nil
}

// findIn looks the layers through from the newest on.
func findIn(chain []diskLayer, place int64) (from *os.File, at, count int64, err error) {
	count = 1 << 62
	for _, one := range chain {
		if place >= one.size() {
			continue
		}
		here, length, err := one.find(place)
		if err != nil {
			return nil, 0, 0, err
		}
		if rest := one.size() - place; length > rest {
			length = rest
		}
		if length < count {
			count = length
		}
		if here != isBelow {
			return one.file(), here, count, nil
		}
	}
	return nil, isHole, count, nil
}

// flatten copies what the chain holds into one file, without its holes.
func flatten(chain []diskLayer, to *os.File, store *contents) error {
	size := chain[0].size()
	if size > store.limits.DiskBytes {
		return refuse("too_many_bytes", "the disk has more than %d bytes", store.limits.DiskBytes)
	}
	if err := to.Truncate(size); err != nil {
		return spaceError(err)
	}
	buffer := make([]byte, copyBytes)
	for place := int64(0); place < size; {
		from, at, count, err := findIn(chain, place)
		if err != nil {
			return err
		}
		if rest := size - place; count > rest {
			count = rest
		}
		if at == isHole {
			place += count
			continue
		}
		if count > copyBytes {
			count = copyBytes
		}
		n, err := from.ReadAt(buffer[:count], at)
		if err != nil && err != io.EOF {
			return err
		}
		// A file may end in the middle of its last cluster.
		for index := n; index < int(count); index++ {
			buffer[index] = 0
		}
		stored, err := writeData(int(to.Fd()), buffer[:count], place)
		if err != nil {
			return spaceError(err)
		}
		if err := store.checkSpace(stored); err != nil {
			return err
		}
		place += count
	}
	return nil
}
