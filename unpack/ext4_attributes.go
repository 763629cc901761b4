// Extended attributes of a disk's inodes, as programs see them: in the inode and in a block of its own. The disk has
// access lists in a shorter form.

package main

import "encoding/binary"

const (
	attributeMagic  = 0xea020000
	attributeHead   = 16
	attributeBlock  = 32
	extraSizeAt     = 128
	listLowAt       = 104
	listHighAt      = 118
	listFormDisk    = 1
	listFormProgram = 2
	noID            = 0xffffffff
)

// spaces are beginnings of names by number; others are the file system's own.
var spaces = map[byte]string{
	1: "user.", 2: accessList, 3: defaultList, 4: "trusted.", 6: "security.",
}

func (e *ext4) attributesOf(raw []byte) (map[string]string, error) {
	found := map[string]string{}
	if len(raw) > extraSizeAt+4 {
		from := extraSizeAt + int(little.Uint16(raw[extraSizeAt:]))
		if from+4 <= len(raw) && little.Uint32(raw[from:]) == attributeMagic {
			if err := readAttributes(raw[from+4:], raw[from+4:], found); err != nil {
				return nil, err
			}
		}
	}
	number := int64(little.Uint32(raw[listLowAt:])) | int64(little.Uint16(raw[listHighAt:]))<<32
	if number == 0 {
		return found, nil
	}
	block := make([]byte, e.block)
	if _, err := e.from.ReadAt(block, number*e.block); err != nil || little.Uint32(block) != attributeMagic {
		return nil, badDisk("a file's attributes cannot be read")
	}
	return found, readAttributes(block[attributeBlock:], block, found)
}

func readAttributes(list, values []byte, found map[string]string) error {
	for len(list) >= 4 && little.Uint32(list) != 0 {
		if len(list) < attributeHead {
			return badDisk("a file's attributes are damaged")
		}
		count, at, size := int(list[0]), int(little.Uint16(list[2:])), int64(little.Uint32(list[8:]))
		if attributeHead+count > len(list) || int64(at)+size > int64(len(values)) || little.Uint32(list[4:]) != 0 {
			return badDisk("a file's attributes are damaged")
		}
		name, value := spaces[list[1]]+string(list[attributeHead:attributeHead+count]), string(values[at:int64(at)+size])
		if spaces[list[1]] != "" {
			if name == accessList || name == defaultList {
				value = programList(value)
			}
			found[name] = value
		}
		next := attributeHead + (count+3)&^3
		if next > len(list) {
			return nil
		}
		list = list[next:]
	}
	return nil
}

// programList is what programs get of an access list; "" if it is damaged.
func programList(value string) string {
	raw := []byte(value)
	if len(raw) < 4 || binary.LittleEndian.Uint32(raw) != listFormDisk {
		return ""
	}
	list := binary.LittleEndian.AppendUint32(nil, listFormProgram)
	for raw = raw[4:]; len(raw) >= 4; {
		tag, id, length := little.Uint16(raw), uint32(noID), 4
		if tag == 0x02 || tag == 0x08 {
			if length = 8; len(raw) < length {
				return ""
			}
			id = little.Uint32(raw[4:])
		}
		list = append(list, raw[:4]...)
		list = binary.LittleEndian.AppendUint32(list, id)
		raw = raw[length:]
	}
	return string(list)
}
