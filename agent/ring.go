// The last bytes of a terminal's output, by their position since its beginning.

package main

// replayBytes is the amount of a session's output kept for later clients.
const replayBytes = 262144

// replayScanBytes is how far a replay looks for a place to begin: longer than usual lines and escape sequences.
const replayScanBytes = 8192

type ring struct {
	bytes []byte // the byte at position p is at p modulo replayBytes
	total int64
}

func (r *ring) append(bytes []byte) {
	if drop := len(bytes) - replayBytes; drop > 0 {
		bytes = bytes[drop:]
		r.total += int64(drop)
	}
	if room := replayBytes - len(r.bytes); room > 0 {
		first := bytes[:minimum(room, len(bytes))]
		r.bytes = append(r.bytes, first...)
		r.total += int64(len(first))
		bytes = bytes[len(first):]
	}
	for len(bytes) > 0 {
		n := copy(r.bytes[r.total%replayBytes:], bytes)
		r.total += int64(n)
		bytes = bytes[n:]
	}
}

// copyFrom fills buffer with the bytes from a position that is still kept.
func (r *ring) copyFrom(position int64, buffer []byte) {
	n := copy(buffer, r.bytes[position%replayBytes:])
	copy(buffer[n:], r.bytes)
}

// start returns where a replay begins. If the beginning of the output is gone, that is after the first line end or
// at the first escape sequence: bytes before it may be the rest of a sequence or a character and would show as
// garbage.
func (r *ring) start() int64 {
	first := r.total - int64(len(r.bytes))
	if first == 0 {
		return 0
	}
	for position := first; position < first+replayScanBytes; position++ {
		switch r.bytes[position%replayBytes] {
		case '\n':
			return position + 1
		case '\x1b':
			return position
		}
	}
	for r.bytes[first%replayBytes]&0xc0 == 0x80 && first < r.total-1 {
		first++
	}
	return first
}
