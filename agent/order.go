// The order in which a process's two outputs came, for clients that read them from the rings.

package main

// ordersMax limits the memory for the order. The order of older bytes is forgotten.
const ordersMax = 1024

// orderedRun: bytes of an output up to a position came together, behind those of the run before.
type orderedRun struct {
	output int
	end    int64
}

// note records that the newest bytes are those of the output. It holds process.mu.
func (p *process) note(o *output) {
	if len(p.outputs) == 1 {
		return
	}
	if last := len(p.order) - 1; last >= 0 && p.order[last].output == o.index {
		p.order[last].end = o.ring.total
		return
	}
	if len(p.order) == ordersMax {
		p.order = p.order[:copy(p.order, p.order[ordersMax/2:])]
	}
	p.order = append(p.order, orderedRun{o.index, o.ring.total})
}
