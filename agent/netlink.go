// Requests to the kernel about addresses and routes (rtnetlink): several go in one call and take effect in their order.

package main

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// Not in package syscall: the gateway is on the link although no address of ours says so.
const routeOnLink = 4 // RTNH_F_ONLINK

// kernelRequest is one message without its header.
type kernelRequest struct {
	what  string
	kind  uint16
	flags uint16
	body  []byte
	// isDone is the error that means the requested state already holds.
	isDone syscall.Errno
}

// addAddress adds an address to a card; the kernel adds a route to the network of that prefix.
func addAddress(index uint32, i identity) kernelRequest {
	return kernelRequest{
		what: "address", kind: syscall.RTM_NEWADDR,
		flags: syscall.NLM_F_CREATE | syscall.NLM_F_REPLACE, body: addressBody(index, i),
	}
}

// removeAddress removes an address; the card's routes disappear with its last one.
func removeAddress(index uint32, i identity) kernelRequest {
	return kernelRequest{
		what: "former address", kind: syscall.RTM_DELADDR, body: addressBody(index, i), isDone: syscall.EADDRNOTAVAIL,
	}
}

func addressBody(index uint32, i identity) []byte {
	body := []byte{syscall.AF_INET, byte(i.prefix), 0, syscall.RT_SCOPE_UNIVERSE}
	body = binary.LittleEndian.AppendUint32(body, index)
	return appendAttribute(body, syscall.IFA_LOCAL, i.address[:])
}

// addDefaultRoute routes everything else through the gateway.
func addDefaultRoute(index uint32, i identity) kernelRequest {
	flags := uint32(0)
	if i.isGatewayFar {
		flags = routeOnLink
	}
	body := []byte{
		syscall.AF_INET, 0, 0, 0,
		syscall.RT_TABLE_MAIN, syscall.RTPROT_BOOT, syscall.RT_SCOPE_UNIVERSE, syscall.RTN_UNICAST,
	}
	body = binary.LittleEndian.AppendUint32(body, flags)
	body = appendAttribute(body, syscall.RTA_GATEWAY, i.gateway[:])
	body = appendAttribute(body, syscall.RTA_OIF, binary.LittleEndian.AppendUint32(nil, index))
	return kernelRequest{
		what: "route", kind: syscall.RTM_NEWROUTE, flags: syscall.NLM_F_CREATE | syscall.NLM_F_REPLACE, body: body,
	}
}

// appendAttribute: values here are multiples of four bytes, so none needs padding.
func appendAttribute(body []byte, kind uint16, value []byte) []byte {
	body = binary.LittleEndian.AppendUint16(body, uint16(syscall.SizeofRtAttr+len(value)))
	body = binary.LittleEndian.AppendUint16(body, kind)
	return append(body, value...)
}

// encodeRequests numbers them from 1. The kernel acknowledges only the last, and reports an error for each that
// fails.
func encodeRequests(requests []kernelRequest) []byte {
	var bytes []byte
	for i, request := range requests {
		flags := request.flags | syscall.NLM_F_REQUEST
		if i == len(requests)-1 {
			flags |= syscall.NLM_F_ACK
		}
		bytes = binary.LittleEndian.AppendUint32(bytes, uint32(syscall.SizeofNlMsghdr+len(request.body)))
		bytes = binary.LittleEndian.AppendUint16(bytes, request.kind)
		bytes = binary.LittleEndian.AppendUint16(bytes, flags)
		bytes = binary.LittleEndian.AppendUint32(bytes, uint32(i+1))
		bytes = binary.LittleEndian.AppendUint32(bytes, 0)
		bytes = append(bytes, request.body...)
	}
	return bytes
}

// ask sends the requests and returns the first failure.
func ask(socket int, requests []kernelRequest) error {
	if err := syscall.Sendto(socket, encodeRequests(requests), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	var failure error
	answer := make([]byte, 4096)
	for {
		n, _, err := syscall.Recvfrom(socket, answer, 0)
		if err != nil {
			return err
		}
		number, errno, isAnswer := parseAnswer(answer[:n])
		if !isAnswer || number < 1 || number > len(requests) {
			continue
		}
		if errno != 0 && errno != requests[number-1].isDone && failure == nil {
			failure = fmt.Errorf("%s: %w", requests[number-1].what, errno)
		}
		if number == len(requests) {
			return failure
		}
	}
}

// parseAnswer reads the number of the answered request and its result.
func parseAnswer(bytes []byte) (number int, errno syscall.Errno, isAnswer bool) {
	if len(bytes) < syscall.SizeofNlMsghdr+4 || binary.LittleEndian.Uint16(bytes[4:]) != syscall.NLMSG_ERROR {
		return 0, 0, false
	}
	code := int32(binary.LittleEndian.Uint32(bytes[syscall.SizeofNlMsghdr:]))
	return int(binary.LittleEndian.Uint32(bytes[8:])), syscall.Errno(-code), true
}
