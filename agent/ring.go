// The last bytes of an output, by their position since its beginning, and when they came.
//
// A ring takes memory as output comes, and only what the budget of all rings allows: then it stays as small as it is.

package main

import (
	"bytes"
	"sort"
	"sync/atomic"
	"time"
)

const (
	ringBytesDefault = 1 << 20
	ringBytesLeast   = 65536
	ringBytesMost    = 16 << 20
	ringBytesGranted = 4 * ringBytesStep // so much memory each ring may always take
	ringBytesFirst   = 1024
	ringBytesStep    = 32768 // the most that is taken at once
	// adoptedBytesLeast is the number of bytes from which a buffer is kept instead of a copy.
	adoptedBytesLeast = 24576
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

// ring keeps the bytes from first to total in segments without a gap, the oldest first.
type ring struct {
	budget       *budget
	bytesMax     int
	segments     []segment
	size         int // of all segments' memory
	first, total int64
	isRefused    bool // the budget has refused it memory
	marks        []mark
}

// segment is a piece of output: a buffer that was read into, or several small pieces copied together.
type segment struct {
	offset int64
	bytes  []byte
	buffer *chunk // nil: bytes has memory of its own
}

func (s segment) end() int64 { return s.offset + int64(len(s.bytes)) }

func (s segment) size() int {
	if s.buffer != nil {
		return len(s.buffer)
	}
	return cap(s.bytes)
}

// mark: the bytes from an offset to the next mark came until a time.
type mark struct {
	offset      int64
	begin, last time.Duration
}

// adopt adds the first bytes of a buffer. It keeps the buffer if that saves a copy and wastes little.
func (r *ring) adopt(buffer *chunk, count int) (isKept bool) {
	bytes := buffer[dataRoom : dataRoom+count]
	if count < adoptedBytesLeast {
		r.append(bytes)
		return false
	}
	r.add(segment{r.total, bytes, buffer})
	r.total += int64(count)
	r.shrink()
	return true
}

// append adds a copy of bytes.
func (r *ring) append(bytes []byte) {
	for len(bytes) > 0 {
		last := len(r.segments) - 1
		if last < 0 || r.segments[last].buffer != nil || len(r.segments[last].bytes) == cap(r.segments[last].bytes) {
			size := ringBytesFirst
			if last >= 0 && r.segments[last].buffer == nil {
				size = 2 * r.segments[last].size()
			}
			for size < len(bytes) {
				size *= 2
			}
			r.add(segment{offset: r.total, bytes: make([]byte, 0, minimum(size, ringBytesStep))})
			last = len(r.segments) - 1
		}
		tail := &r.segments[last].bytes
		count := minimum(len(bytes), cap(*tail)-len(*tail))
		*tail = append(*tail, bytes[:count]...)
		r.total += int64(count)
		bytes = bytes[count:]
		r.shrink()
	}
}

// add counts the memory of a segment. Where the budget has no more, the oldest ones give way to it.
func (r *ring) add(s segment) {
	size := s.size()
	if isGranted := r.size+size <= ringBytesGranted; !r.budget.take(size, isGranted) {
		r.isRefused = true
		for freed := 0; freed < size && len(r.segments) > 0; {
			freed += r.evict()
		}
		r.budget.take(size, true)
	}
	r.size += size
	r.segments = append(r.segments, s)
}

// shrink drops the oldest segments that are beyond the ring's length.
func (r *ring) shrink() {
	for r.total-r.segments[0].end() >= int64(r.bytesMax) {
		r.evict()
	}
	if oldest := r.total - int64(r.bytesMax); oldest > r.first {
		r.first = oldest
	}
}

// evict drops the oldest segment.
func (r *ring) evict() (freed int) {
	oldest := r.segments[0]
	freed = oldest.size()
	r.segments[0] = segment{}
	r.segments = r.segments[1:]
	if r.first < oldest.end() {
		r.first = oldest.end()
	}
	if oldest.buffer != nil {
		chunks.giveBack(oldest.buffer)
	}
	r.size -= freed
	r.budget.giveBack(freed)
	return freed
}

// drop forgets all bytes but not their number.
func (r *ring) drop() (freed int) {
	for len(r.segments) > 0 {
		freed += r.evict()
	}
	r.segments, r.marks = nil, nil
	return freed
}

// copyFrom fills buffer with the bytes from a position that is still kept.
func (r *ring) copyFrom(position int64, buffer []byte) {
	index := sort.Search(len(r.segments), func(i int) bool { return r.segments[i].end() > position })
	for count := 0; count < len(buffer); index++ {
		s := r.segments[index]
		count += copy(buffer[count:], s.bytes[position+int64(count)-s.offset:])
	}
}

// screenStart returns where a screen can be drawn from. If the beginning of the output is gone, that is after the
// first line end or at the first escape sequence: bytes before it may be the rest of a sequence or a character and
// would show as garbage.
func (r *ring) screenStart() int64 {
	first := r.first
	if first == 0 || first == r.total {
		return first
	}
	begin := make([]byte, minimum(replayScanBytes, int(r.total-first)))
	r.copyFrom(first, begin)
	if i := bytes.IndexAny(begin, "\n\x1b"); i >= 0 && begin[i] == '\n' {
		return first + int64(i) + 1
	} else if i >= 0 {
		return first + int64(i)
	}
	for i := 0; i < len(begin)-1 && begin[i]&0xc0 == 0x80; i++ {
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
