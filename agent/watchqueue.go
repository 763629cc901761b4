// The events of a watch: numbered, and kept until its reader has confirmed them. The newest confirmed ones stay for
// another reader, or for one whose answer was lost behind the confirmation.

package main

import (
	"strings"
	"unicode/utf8"

	"bhatti/agent/wire"
)

const (
	// watchEventsMax and watchBytesMax limit the events kept for a reader, which may be away for hours.
	watchEventsMax = 16384
	watchBytesMax  = 1 << 20
	// watchConfirmedMax and watchConfirmedBytes limit the confirmed events that stay.
	watchConfirmedMax   = 1024
	watchConfirmedBytes = 128 << 10
	// watchEventBytes is the cost of an event beside its paths.
	watchEventBytes = 96
	// watchAnswerBytes is the size of an answer: below the limit of a frame by more than one event takes.
	watchAnswerBytes = 131072
)

const (
	reasonUnread = "more events came than are kept for a reader"
	reasonTaken  = "another reader has confirmed them, and they are not kept any more"
	reasonForgot = "this sandbox is an earlier copy of the one that was watched"
	reasonKernel = "changes came faster than the agent could read them"
)

type watchQueue struct {
	events []wire.FileEvent
	// confirmed counts the confirmed events, which come first.
	confirmed int
	// bytes is the cost of the others, confirmedBytes that of the confirmed ones.
	bytes, confirmedBytes int
	// first is the number of the first event, sent that of the last one that an answer had.
	first, sent int64
	// isFull drops events until the reader has confirmed half of the queue; the last event says so.
	isFull bool
}

func newWatchQueue() watchQueue { return watchQueue{first: 1} }

func (q *watchQueue) last() int64 { return q.first + int64(len(q.events)) - 1 }

func (q *watchQueue) unconfirmed() int { return len(q.events) - q.confirmed }

func (q *watchQueue) add(event wire.FileEvent) {
	if q.isFull || q.isRepeated(event) {
		return
	}
	if q.unconfirmed() >= watchEventsMax-1 || q.bytes >= watchBytesMax {
		q.isFull = true
		event = lostEvent(reasonUnread)
	}
	q.events = append(q.events, event)
	q.bytes += costOf(event)
}

// isRepeated reports whether the reader would learn nothing from the event: the one before it is equal and not sent.
func (q *watchQueue) isRepeated(event wire.FileEvent) bool {
	if len(q.events) == 0 || q.last() <= q.sent {
		return false
	}
	switch event.Type {
	case wire.FileWritten, wire.FileChanged, wire.EventsLost:
		return q.events[len(q.events)-1] == event
	}
	return false
}

// take confirms the events up to a number and returns those behind it, as many as fit into an answer, and the number of
// the last one.
func (q *watchQueue) take(after int64) ([]wire.FileEvent, int64) {
	if after > q.last() {
		// Goes on behind the number that the reader has, so that it never misses an event for its number.
		q.events = append([]wire.FileEvent{lostEvent(reasonForgot)}, q.events[q.confirmed:]...)
		q.bytes += costOf(q.events[0])
		q.confirmed, q.confirmedBytes = 0, 0
		q.first, q.sent = after+1, after
	}
	taken := []wire.FileEvent{}
	if after < q.first-1 {
		taken = append(taken, lostEvent(reasonTaken))
		after = q.first - 1
	}
	q.confirm(int(after - q.first + 1))
	size, next := 0, after
	for _, event := range q.events[after-q.first+1:] {
		if size += len(wire.Encode(event)); size > watchAnswerBytes {
			break
		}
		taken = append(taken, event)
		next++
	}
	if next > q.sent {
		q.sent = next
	}
	return taken, next
}

// confirm notes that a reader has the first events, and drops those that are too many to stay.
func (q *watchQueue) confirm(count int) {
	for ; q.confirmed < count; q.confirmed++ {
		cost := costOf(q.events[q.confirmed])
		q.bytes, q.confirmedBytes = q.bytes-cost, q.confirmedBytes+cost
	}
	dropped := 0
	for ; q.confirmed-dropped > watchConfirmedMax || q.confirmedBytes > watchConfirmedBytes; dropped++ {
		q.confirmedBytes -= costOf(q.events[dropped])
		q.events[dropped] = wire.FileEvent{}
	}
	q.events = q.events[dropped:]
	q.confirmed -= dropped
	q.first += int64(dropped)
	if q.unconfirmed() <= watchEventsMax/2 && q.bytes <= watchBytesMax/2 {
		q.isFull = false
	}
}

func costOf(event wire.FileEvent) int { return len(event.Path) + len(event.To) + watchEventBytes }

func lostEvent(reason string) wire.FileEvent {
	return wire.FileEvent{Type: wire.EventsLost, Path: ".", Reason: reason}
}

// readable replaces what is no UTF-8.
func readable(event wire.FileEvent) wire.FileEvent {
	if !utf8.ValidString(event.Path) || !utf8.ValidString(event.To) {
		event.PathIsLossy = true
		event.Path, event.To = strings.ToValidUTF8(event.Path, "\ufffd"), strings.ToValidUTF8(event.To, "\ufffd")
	}
	return event
}
