// Parses the requests of a sandbox's first moment and of a stop, and writes their answers, without reflection.
//
// A machine under software emulation that was just started pays for all code that runs for the first time, and
// encoding/json is a lot of code. This parser accepts JSON as the host writes it: no spaces, no escapes, ASCII,
// known fields. For any other request encoding/json parses the whole text; so both agree on everything that is
// accepted here.

package wire

import (
	"encoding/base64"
	"strconv"
)

// readPlain fills target if there is a parser for it here and the payload is plain.
func readPlain(payload []byte, target any) bool {
	p := plain{text: payload}
	switch target := target.(type) {
	case *Personalise:
		read := Personalise{}
		if p.fields(func(name string) bool { return p.personalise(name, &read) }) && p.isAtEnd() {
			*target = read
			return true
		}
	case *Refresh:
		read := Refresh{}
		if p.fields(func(name string) bool { return p.refresh(name, &read) }) && p.isAtEnd() {
			*target = read
			return true
		}
	case *Quiesce:
		if readPlainOperation(payload) == "quiesce" {
			*target = Quiesce{}
			return true
		}
	case *Exec:
		read := Exec{}
		if p.fields(func(name string) bool { return p.exec(name, &read) }) && p.isAtEnd() {
			*target = read
			return true
		}
	case *ProcessStart:
		read := ProcessStart{}
		if p.fields(func(name string) bool { return p.processStart(name, &read) }) && p.isAtEnd() {
			*target = read
			return true
		}
	}
	return false
}

// readPlainOperation returns the name in a request that begins with it, as the host's requests do.
func readPlainOperation(payload []byte) string {
	p := plain{text: payload}
	const begin = `{"op":`
	if len(payload) < len(begin) || string(payload[:len(begin)]) != begin {
		return ""
	}
	p.at = len(begin)
	name, isText := p.string()
	if !isText {
		return ""
	}
	if p.take('}') && p.isAtEnd() {
		return name
	}
	// Only these operations have a strict parser for the rest.
	switch name {
	case "personalise", "refresh", "exec", "process_start":
		if p.take(',') {
			return name
		}
	}
	return ""
}

// encodePlain returns nil for values without a writer here.
func encodePlain(value any) []byte {
	switch value := value.(type) {
	case Started:
		return append(strconv.AppendInt([]byte(`{"started":{"pid":`), int64(value.Started.Pid), 10), "}}"...)
	case ProcessMessage:
		return value.append(nil)
	case Result:
		switch ok := value.OK.(type) {
		case ProcessState:
			return append(ok.append([]byte(`{"ok":`)), '}')
		case Empty:
			return []byte(`{"ok":{}}`)
		case Exited:
			if ok.Signal == nil {
				text := strconv.AppendInt([]byte(`{"ok":{"exit_code":`), int64(ok.ExitCode), 10)
				return append(text, `,"signal":null}}`...)
			}
		case Personalised:
			if ok.Pending {
				return nil
			}
			for _, c := range []byte(ok.BootID) {
				if !isPlain(c) || c == '<' || c == '>' || c == '&' {
					return nil
				}
			}
			text := append([]byte(`{"ok":{"boot_id":"`), ok.BootID...)
			if ok.Image {
				return append(text, `","image":true}}`...)
			}
			return append(text, `"}}`...)
		}
	}
	return nil
}

func (p *plain) personalise(name string, read *Personalise) (ok bool) {
	switch name {
	case "hostname":
		read.Hostname, ok = p.string()
	case "machine_id":
		read.MachineID, ok = p.string()
	case "env":
		read.Env, ok = p.texts(read.Env)
	case "network":
		if p.word("null") {
			return read.Network == nil
		}
		if read.Network != nil {
			return false
		}
		read.Network = &Network{}
		ok = p.fields(func(name string) bool { return p.network(name, read.Network) })
	case "grow_disk":
		read.GrowDisk, ok = p.bool()
	case "is_new":
		read.IsNew, ok = p.bool()
	case "image":
		if p.word("null") {
			return read.Image == nil
		}
		if read.Image != nil {
			return false
		}
		read.Image = &Image{}
		ok = p.fields(func(name string) bool { return p.image(name, read.Image) })
	default:
		moment := Refresh{Entropy: read.Entropy, UnixNs: read.UnixNs}
		ok = p.refresh(name, &moment)
		read.Entropy, read.UnixNs = moment.Entropy, moment.UnixNs
	}
	return ok
}

func (p *plain) image(name string, read *Image) (ok bool) {
	switch name {
	case "user":
		read.User, ok = p.string()
	case "workdir":
		read.Workdir, ok = p.string()
	case "env":
		read.Env, ok = p.texts(read.Env)
	}
	return ok
}

func (p *plain) refresh(name string, read *Refresh) (ok bool) {
	switch name {
	case "op":
		_, ok = p.string()
	case "entropy":
		read.Entropy, ok = p.base64()
	case "unix_ns":
		read.UnixNs, ok = p.integerText()
	}
	return ok
}

func (p *plain) network(name string, read *Network) (ok bool) {
	var number int64
	switch name {
	case "mac":
		read.MAC, ok = p.string()
	case "address":
		read.Address, ok = p.string()
	case "prefix":
		number, ok = p.integer()
		read.Prefix = int(number)
	case "gateway":
		read.Gateway, ok = p.string()
	case "dns":
		read.DNS, ok = p.list(read.DNS)
	case "mtu":
		number, ok = p.integer()
		read.MTU = int(number)
	}
	return ok
}

func (p *plain) exec(name string, read *Exec) (ok bool) {
	switch name {
	case "op":
		_, ok = p.string()
	case "argv":
		read.Argv, ok = p.list(read.Argv)
	case "env":
		read.Env, ok = p.texts(read.Env)
	case "cwd":
		read.Cwd, ok = p.string()
	case "user":
		read.User, ok = p.string()
	case "stdin":
		read.Stdin, ok = p.bool()
	case "tty":
		ok = p.word("null") // The first requests have no terminal.
	}
	return ok
}

func (p *plain) processStart(name string, read *ProcessStart) (ok bool) {
	switch name {
	case "name":
		read.Name, ok = p.stringOrNull()
	case "key":
		read.Key, ok = p.stringOrNull()
	case "elapsed_ms":
		read.ElapsedMs, ok = p.integer()
	case "from":
		ok = p.word("null") // A first request has no output to go on from.
	case "on_disconnect":
		read.OnDisconnect, ok = p.string()
	case "grace_ms":
		read.GraceMs, ok = p.integer()
	case "retain_ms":
		read.RetainMs, ok = p.integer()
	case "ring_bytes":
		read.RingBytes, ok = p.integer()
	case "timeout_ms":
		if p.word("null") {
			read.TimeoutMs = nil
			return true
		}
		var limit int64
		limit, ok = p.integer()
		read.TimeoutMs = &limit
	case "attach":
		var attaches bool
		attaches, ok = p.bool()
		read.Attach = &attaches
	default:
		ok = p.exec(name, &read.Exec)
	}
	return ok
}

// plain reads values in order. A false result means that the text is not plain.
type plain struct {
	text []byte
	at   int
}

func isPlain(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }

func (p *plain) isAtEnd() bool { return p.at == len(p.text) }

func (p *plain) take(wanted byte) bool {
	if p.at < len(p.text) && p.text[p.at] == wanted {
		p.at++
		return true
	}
	return false
}

func (p *plain) word(wanted string) bool {
	if len(p.text)-p.at < len(wanted) || string(p.text[p.at:p.at+len(wanted)]) != wanted {
		return false
	}
	p.at += len(wanted)
	return true
}

func (p *plain) bool() (value, ok bool) {
	if p.word("true") {
		return true, true
	}
	return false, p.word("false")
}

func (p *plain) string() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	begin := p.at
	for p.at < len(p.text) && isPlain(p.text[p.at]) {
		p.at++
	}
	return string(p.text[begin:p.at]), p.take('"')
}

func (p *plain) stringOrNull() (*string, bool) {
	if p.word("null") {
		return nil, true
	}
	text, ok := p.string()
	return &text, ok
}

// integer reads digits that fit 63 bits.
func (p *plain) integer() (int64, bool) {
	const digitsMax = 19
	begin, value := p.at, int64(0)
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' && p.at-begin < digitsMax {
		value = value*10 + int64(p.text[p.at]-'0')
		p.at++
	}
	digits := p.at - begin
	return value, digits > 0 && value >= 0 && (digits == 1 || p.text[begin] != '0')
}

func (p *plain) integerText() (int64, bool) {
	text, ok := p.string()
	digits := plain{text: []byte(text)}
	value, isInteger := digits.integer()
	return value, ok && isInteger && digits.isAtEnd()
}

func (p *plain) base64() ([]byte, bool) {
	text, ok := p.string()
	if !ok {
		return nil, false
	}
	bytes, err := base64.StdEncoding.DecodeString(text)
	return bytes, err == nil
}

// list reads an array of strings. If the field is repeated it fails: encoding/json would overwrite the earlier list
// in place.
func (p *plain) list(before []string) ([]string, bool) {
	if before != nil || !p.take('[') {
		return nil, false
	}
	list := []string{}
	if p.take(']') {
		return list, true
	}
	for {
		text, ok := p.string()
		if !ok {
			return nil, false
		}
		list = append(list, text)
		if p.take(']') {
			return list, true
		}
		if !p.take(',') {
			return nil, false
		}
	}
}

func (p *plain) texts(before map[string]string) (map[string]string, bool) {
	if before != nil {
		return nil, false
	}
	texts := map[string]string{}
	return texts, p.fields(func(name string) bool {
		text, ok := p.string()
		texts[name] = text
		return ok
	})
}

// fields reads an object; read takes the value of each name.
func (p *plain) fields(read func(name string) bool) bool {
	if !p.take('{') {
		return false
	}
	if p.take('}') {
		return true
	}
	for {
		name, ok := p.string()
		if !ok || !p.take(':') || !read(name) {
			return false
		}
		if p.take('}') {
			return true
		}
		if !p.take(',') {
			return false
		}
	}
}
