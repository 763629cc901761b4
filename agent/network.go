// The guest's network: the first virtio card, set by ioctl.

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"bhatti/agent/wire"
)

// interfaceRequest is the kernel's struct ifreq.
type interfaceRequest struct {
	name  [16]byte
	value [24]byte
}

// routeEntry is the kernel's struct rtentry on a 64-bit machine.
type routeEntry struct {
	_                             uint64
	destination, gateway, netmask socketAddress
	flags                         uint16
	_                             [2]uint16
	_                             [2]uint64
	metric                        int16
	_                             [3]uint16
	device                        *byte
	_                             [3]uint64
}

// socketAddress is struct sockaddr_in.
type socketAddress struct {
	family  uint16
	port    uint16
	address [4]byte
	_       [8]byte
}

const (
	routeUp      = 1
	routeGateway = 2
	routeHost    = 4
)

// cardName is kept once it was found: a clone has its template's card, and looking through sysfs takes a while there.
var cardName string

// openCard finds the card and keeps what is to be set once: a clone has the same card.
func openCard() (card, error) {
	none := card{socket: -1}
	name, err := networkCard("/sys/class/net")
	if err != nil || name == "" {
		return none, err
	}
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, err
	}
	setKernel("net/ipv6/conf/"+name+"/disable_ipv6", "1")
	setKernel("net/ipv4/conf/"+name+"/arp_notify", "1")
	return card{name, socket}, nil
}

// setNetwork gives the card its identity, or keeps it down when there is none.
func (p *prepared) setNetwork(network *wire.Network) error {
	if network == nil {
		if p.card.name == "" {
			return nil
		}
		return p.card.down()
	}
	if p.card.name == "" {
		return wire.Errorf(wire.NotFound, "the machine has no virtio network card")
	}
	identity, err := parseNetwork(*network)
	if err != nil {
		return err
	}
	if err := p.card.become(identity); err != nil {
		return err
	}
	return p.files[resolverFile].write([]byte(resolvConf(network.DNS)))
}

// networkCard names the first virtio card; "" if there is none.
func networkCard(class string) (string, error) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		driver, err := os.Readlink(filepath.Join(class, entry.Name(), "device/driver"))
		if err == nil && filepath.Base(driver) == "virtio_net" {
			return entry.Name(), nil
		}
	}
	return "", nil
}

// identity is a network in the kernel's terms.
type identity struct {
	mac                      [6]byte
	address, netmask         [4]byte
	gateway                  [4]byte
	hasGateway, isGatewayFar bool
	mtu                      int
}

func parseNetwork(network wire.Network) (identity, error) {
	var i identity
	mac, err := net.ParseMAC(network.MAC)
	if err != nil || len(mac) != len(i.mac) || mac[0]&1 != 0 {
		return i, wire.Errorf(wire.Invalid, "%q is no address of a network card", network.MAC)
	}
	copy(i.mac[:], mac)
	if !parseAddress(network.Address, &i.address) {
		return i, wire.Errorf(wire.Invalid, "%q is no IPv4 address", network.Address)
	}
	if network.Prefix < 1 || network.Prefix > 32 {
		return i, wire.Errorf(wire.Invalid, "%d is no length of a network prefix", network.Prefix)
	}
	mask := ^uint32(0) << (32 - network.Prefix)
	binary.BigEndian.PutUint32(i.netmask[:], mask)
	if network.Gateway != "" {
		if !parseAddress(network.Gateway, &i.gateway) {
			return i, wire.Errorf(wire.Invalid, "%q is no IPv4 address", network.Gateway)
		}
		i.hasGateway = true
		i.isGatewayFar = (binary.BigEndian.Uint32(i.gateway[:])^binary.BigEndian.Uint32(i.address[:]))&mask != 0
	}
	for _, server := range network.DNS {
		if net.ParseIP(server) == nil {
			return i, wire.Errorf(wire.Invalid, "%q is no address of a name server", server)
		}
	}
	if network.MTU < 68 || network.MTU > 65535 {
		return i, wire.Errorf(wire.Invalid, "%d is no MTU", network.MTU)
	}
	i.mtu = network.MTU
	return i, nil
}

func parseAddress(text string, address *[4]byte) bool {
	parsed := net.ParseIP(text).To4()
	return parsed != nil && copy(address[:], parsed) == 4
}

func resolvConf(servers []string) string {
	text := ""
	for _, server := range servers {
		text += "nameserver " + server + "\n"
	}
	return text
}

// card is a network card and the socket through which it is set.
type card struct {
	name   string
	socket int
}

func withCard(name string, do func(card) error) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	return do(card{name, socket})
}

// become takes the card down first, which also drops the routes of a former identity. The kernel announces the new
// address to the neighbours when the card comes up: the address may have been another machine's a moment ago.
func (c card) become(i identity) error {
	if err := c.down(); err != nil {
		return err
	}

	var hardware interfaceRequest
	binary.LittleEndian.PutUint16(hardware.value[:], syscall.ARPHRD_ETHER)
	copy(hardware.value[2:], i.mac[:])
	if err := c.set("address of the card", syscall.SIOCSIFHWADDR, hardware); err != nil {
		return err
	}
	var mtu interfaceRequest
	binary.LittleEndian.PutUint32(mtu.value[:], uint32(i.mtu))
	if err := c.set("MTU", syscall.SIOCSIFMTU, mtu); err != nil {
		return err
	}
	if err := c.set("address", syscall.SIOCSIFADDR, addressRequest(i.address)); err != nil {
		return err
	}
	if err := c.set("netmask", syscall.SIOCSIFNETMASK, addressRequest(i.netmask)); err != nil {
		return err
	}
	if err := c.up(); err != nil {
		return err
	}
	if !i.hasGateway {
		return nil
	}
	if i.isGatewayFar {
		if err := c.route(i.gateway, [4]byte{255, 255, 255, 255}, [4]byte{}, routeUp|routeHost); err != nil {
			return err
		}
	}
	return c.route([4]byte{}, [4]byte{}, i.gateway, routeUp|routeGateway)
}

func addressRequest(address [4]byte) interfaceRequest {
	var request interfaceRequest
	binary.LittleEndian.PutUint16(request.value[:], syscall.AF_INET)
	copy(request.value[4:], address[:])
	return request
}

func (c card) set(what string, command uintptr, request interfaceRequest) error {
	copy(request.name[:len(request.name)-1], c.name)
	if err := ioctl(c.socket, command, unsafe.Pointer(&request)); err != nil {
		return fmt.Errorf("%s of %s: %w", what, c.name, err)
	}
	return nil
}

func (c card) up() error {
	return c.switchFlag(func(flags uint16) uint16 { return flags | syscall.IFF_UP })
}
func (c card) down() error {
	return c.switchFlag(func(flags uint16) uint16 { return flags &^ syscall.IFF_UP })
}

func (c card) switchFlag(change func(uint16) uint16) error {
	var request interfaceRequest
	copy(request.name[:len(request.name)-1], c.name)
	if err := ioctl(c.socket, syscall.SIOCGIFFLAGS, unsafe.Pointer(&request)); err != nil {
		return fmt.Errorf("state of %s: %w", c.name, err)
	}
	before := binary.LittleEndian.Uint16(request.value[:])
	after := change(before)
	if after == before {
		return nil
	}
	binary.LittleEndian.PutUint16(request.value[:], after)
	return c.set("state", syscall.SIOCSIFFLAGS, request)
}

func (c card) route(destination, netmask, gateway [4]byte, flags uint16) error {
	address := func(address [4]byte) socketAddress {
		return socketAddress{family: syscall.AF_INET, address: address}
	}
	device := append([]byte(c.name), 0)
	entry := routeEntry{
		destination: address(destination), netmask: address(netmask), gateway: address(gateway),
		flags: flags, device: &device[0],
	}
	if err := ioctl(c.socket, syscall.SIOCADDRT, unsafe.Pointer(&entry)); err != nil && err != syscall.EEXIST {
		return fmt.Errorf("route through %s: %w", c.name, err)
	}
	return nil
}

// setKernel writes a setting below /proc/sys. A kernel without it has nothing to be set.
func setKernel(name, value string) {
	file, err := os.OpenFile("/proc/sys/"+name, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = file.WriteString(value)
	file.Close()
}
