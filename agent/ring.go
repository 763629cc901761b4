// The last bytes of an output, by their position since its beginning, and when they came.
//
// A ring takes memory as output comes, and only what the budget of all rings allows: then it stays as small as it is.

package main

import (
	"sync/atomic"
	"time"
)

const (
	ringBytesDefault = 1 << 20
	ringBytesLeast   = 65536 // always granted to a running process
	ringBytesMost    = 16 << 20
	ringBytesFirst   = 1024
	// replayScanBytes is how far a replay looks for a place to begin: longer than usual lines and escape sequences.
	replayScanBytes = 8192
	// marksMax limits the memory for times. Older marks are merged when there are more.
	marksMax = 1024
	// markBytes is the amount of output after which the clock is read although the output never paused.
	markBytes = 262144
)

// budget limits the memory of all rings together.
type budget struct{ used, max int64 }

func (b *budget) take(count int, isGranted bool) bool {
	if used := atomic.AddInt64(&b.used, int64(count)); used > b.max && !isGranted {
		atomic.AddInt64(&b.used, -int64(count))
		return false
	}
	return true
}

func (b *budget) left() int64 { return b.max - atomic.LoadInt64(&b.used) }

func (b *budget) giveBack(count int) { atomic.AddInt64(&b.used, -int64(count)) }

// ring keeps the bytes from first to total; the byte at position p is at p modulo the length of bytes.
type ring struct {
	budget       *budget
	bytesMax     int
	bytes        []byte
	first, total int64
	isRefused    bool // the budget has refused it memory
	marks        []mark
}

// mark: the bytes from an offset to the next mark came until a time.
type mark struct {
	offset      int64
	begin, last time.Duration
}

func (r *ring) append(bytes []byte) {
	r.makeRoom(len(bytes))
	if drop := len(bytes) - len(r.bytes); drop > 0 {
		bytes = bytes[drop:]
		r.total += int64(drop)
	}
	for len(bytes) > 0 {
		n := copy(r.bytes[r.total%int64(len(r.bytes)):], bytes)
		r.total += int64(n)
		bytes = bytes[n:]
	}
	if oldest := r.total - int64(len(r.bytes)); oldest > r.first {
		r.first = oldest
	}
}

// makeRoom enlarges the ring for as many more bytes, if it may grow.
func (r *ring) makeRoom(count int) {
	wanted := r.total - r.first + int64(count)
	if wanted <= int64(len(r.bytes)) || len(r.bytes) == r.bytesMax {
		return
	}
	size := ringBytesFirst
	for size < r.bytesMax && int64(size) < wanted {
		size *= 2
	}
	size = minimum(size, r.bytesMax)
	for !r.budget.take(size-len(r.bytes), size <= ringBytesLeast) {
		r.isRefused = true
		if size /= 2; size <= len(r.bytes) {
			return
		}
	}
	larger := make([]byte, size)
	for position := r.first; position < r.total; {
		from, to := position%int64(len(r.bytes)), position%int64(size)
		n := copy(larger[to:], r.bytes[from:minimum(len(r.bytes), int(from+r.total-position))])
		position += int64(n)
	}
	r.bytes = larger
}

// drop forgets all bytes but not their number.
func (r *ring) drop() (freed int) {
	freed = len(r.bytes)
	r.budget.giveBack(freed)
	r.bytes, r.marks, r.first = nil, nil, r.total
	return freed
}

// copyFrom fills buffer with the bytes from a position that is still kept.
func (r *ring) copyFrom(position int64, buffer []byte) {
	n := copy(buffer, r.bytes[position%int64(len(r.bytes)):])
	copy(buffer[n:], r.bytes)
}

// screenStart returns where a screen can be drawn from. If the beginning of the output is gone, that is after the
// first line end or at the first escape sequence: bytes before it may be the rest of a sequence or a character and
// would show as garbage.
func (r *ring) screenStart() int64 {
	first := r.first
	if first == 0 || first == r.total {
		return first
	}
	at := func(position int64) byte { return r.bytes[position%int64(len(r.bytes))] }
	for position := first; position < first+replayScanBytes && position < r.total; position++ {
		switch at(position) {
		case '\n':
			return position + 1
		case '\x1b':
			return position
		}
	}
	for at(first)&0xc0 == 0x80 && first < r.total-1 {
		first++
	}
	return first
}

// needsTime reports whether the bytes that come now need a time of their own.
func (r *ring) needsTime(hasPaused bool) bool {
	return hasPaused || len(r.marks) == 0 || r.total-r.marks[len(r.marks)-1].offset >= markBytes
}

// stamp records that the bytes appended next come now.
func (r *ring) stamp(now time.Duration) {
	if last := len(r.marks) - 1; last >= 0 && now-r.marks[last].begin < time.Second {
		r.marks[last].last = now
		return
	}
	for len(r.marks) > 1 && r.marks[1].offset <= r.first {
		r.marks = r.marks[1:]
	}
	if len(r.marks) >= marksMax {
		merged := make([]mark, 0, marksMax)
		for i := 0; i+1 < len(r.marks); i += 2 {
			merged = append(merged, mark{r.marks[i].offset, r.marks[i].begin, r.marks[i+1].last})
		}
		r.marks = merged
	}
	r.marks = append(r.marks, mark{r.total, now, now})
}

// since returns the position of the first byte that came at a time or later, or a second before.
func (r *ring) since(at time.Duration) int64 {
	for _, m := range r.marks {
		if m.last >= at {
			if m.offset < r.first {
				return r.first
			}
			return m.offset
		}
	}
	return r.total
}
