// The guest's network: the first virtio card.

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

// openCard finds the card, makes its permanent settings, and brings it up: a clone has the same card, and filling
// its receive ring is most of the cost. Without an address the card sends no packets.
func openCard() (*card, error) {
	name, err := networkCard("/sys/class/net")
	if err != nil || name == "" {
		return nil, err
	}
	c := &card{link: link{name: name}}
	if c.socket, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		return nil, err
	}
	if c.routes, err = syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	var request interfaceRequest
	if err := c.request("index", syscall.SIOCGIFINDEX, &request); err != nil {
		return nil, err
	}
	c.index = binary.LittleEndian.Uint32(request.value[:])
	setKernel("net/ipv6/conf/"+name+"/disable_ipv6", "1")
	return c, c.up()
}

// setNetwork gives the card its identity, or removes its address if there is none.
func (p *prepared) setNetwork(network *wire.Network) error {
	if network == nil {
		if p.card == nil {
			return nil
		}
		return p.card.become(nil)
	}
	if p.card == nil {
		return wire.Errorf(wire.NotFound, "the machine has no virtio network card")
	}
	identity, err := parseNetwork(*network)
	if err != nil {
		return err
	}
	if err := p.card.become(&identity); err != nil {
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
	address                  [4]byte
	prefix                   int
	gateway                  [4]byte
	hasGateway, isGatewayFar bool
	mtu                      int
}

func parseNetwork(network wire.Network) (identity, error) {
	var i identity
	mac, err := net.ParseMAC(network.MAC)
	if err != nil || len(mac) != len(i.mac) || mac[0]&1 != 0 {
		return i, wire.Errorf(wire.Invalid, "%q is not a network card's address", network.MAC)
	}
	copy(i.mac[:], mac)
	if !parseAddress(network.Address, &i.address) {
		return i, wire.Errorf(wire.Invalid, "%q is not an IPv4 address", network.Address)
	}
	if network.Prefix < 1 || network.Prefix > 32 {
		return i, wire.Errorf(wire.Invalid, "%d is not a valid prefix length", network.Prefix)
	}
	i.prefix = network.Prefix
	mask := ^uint32(0) << (32 - network.Prefix)
	if network.Gateway != "" {
		if !parseAddress(network.Gateway, &i.gateway) {
			return i, wire.Errorf(wire.Invalid, "%q is not an IPv4 address", network.Gateway)
		}
		i.hasGateway = true
		i.isGatewayFar = (binary.BigEndian.Uint32(i.gateway[:])^binary.BigEndian.Uint32(i.address[:]))&mask != 0
	}
	for _, server := range network.DNS {
		if net.ParseIP(server) == nil {
			return i, wire.Errorf(wire.Invalid, "%q is not a name server's address", server)
		}
	}
	if network.MTU < 68 || network.MTU > 65535 {
		return i, wire.Errorf(wire.Invalid, "%d is not a valid MTU", network.MTU)
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

// link is a network interface and a socket for changing it.
type link struct {
	name   string
	socket int
}

// card is the link out of the machine.
type card struct {
	link
	index  uint32
	routes int // a socket of rtnetlink
	// identity is the card's current identity.
	identity *identity
}

func withLink(name string, do func(link) error) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	return do(link{name, socket})
}

// become replaces the card's identity; nil removes it. The former routes disappear with their address. No
// announcement is needed: the host knows the address already.
func (c *card) become(next *identity) error {
	var requests []kernelRequest
	if c.identity != nil {
		requests = append(requests, removeAddress(c.index, *c.identity))
	}
	c.identity = next
	if next != nil {
		if err := c.setHardware(*next); err != nil {
			return err
		}
		// Its user may have brought it down.
		if err := c.up(); err != nil {
			return err
		}
		requests = append(requests, addAddress(c.index, *next))
		if next.hasGateway {
			requests = append(requests, addDefaultRoute(c.index, *next))
		}
	}
	if len(requests) == 0 {
		return nil
	}
	return ask(c.routes, requests)
}

func (c *card) setHardware(i identity) error {
	var mtu, hardware interfaceRequest
	binary.LittleEndian.PutUint32(mtu.value[:], uint32(i.mtu))
	if err := c.request("MTU", syscall.SIOCSIFMTU, &mtu); err != nil {
		return err
	}
	binary.LittleEndian.PutUint16(hardware.value[:], syscall.ARPHRD_ETHER)
	copy(hardware.value[2:], i.mac[:])
	return c.request("address of the card", syscall.SIOCSIFHWADDR, &hardware)
}

func (l link) up() error {
	var request interfaceRequest
	if err := l.request("state", syscall.SIOCGIFFLAGS, &request); err != nil {
		return err
	}
	flags := binary.LittleEndian.Uint16(request.value[:])
	if flags&syscall.IFF_UP != 0 {
		return nil
	}
	binary.LittleEndian.PutUint16(request.value[:], flags|syscall.IFF_UP)
	return l.request("state", syscall.SIOCSIFFLAGS, &request)
}

func (l link) request(what string, command uintptr, request *interfaceRequest) error {
	copy(request.name[:len(request.name)-1], l.name)
	if err := ioctl(l.socket, command, unsafe.Pointer(request)); err != nil {
		return fmt.Errorf("%s of %s: %w", what, l.name, err)
	}
	return nil
}

// setKernel writes a setting below /proc/sys. A kernel without the setting is fine.
func setKernel(name, value string) {
	file, err := os.OpenFile("/proc/sys/"+name, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = file.WriteString(value)
	file.Close()
}
