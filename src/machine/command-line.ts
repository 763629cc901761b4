/**
 * QEMU's arguments as a pure function. A template's boot and all its clones must describe the same machine, device for
 * device: the saved state is loaded by position and name. What may differ is said in `Role`.
 *
 * Every file reaches QEMU as a descriptor, so it needs no path and no right on the file system. The descriptors'
 * numbers are fixed by `descriptors`, in the order in which they are handed to the new process.
 */

export type Accelerator = "kvm" | "tcg"

export type MachineShape = {
  cpus: number
  memoryMib: number
  accelerator: Accelerator
  /** How the guest's network card is connected on the host. */
  network: "tap" | "user"
}

/** What a machine is started for; nothing here changes which devices it has. */
export type Role =
  /** Boots from the image with shared memory, which is saved as a template. */
  | "template"
  /** Loads a saved state over a private mapping of a template's memory, and runs as soon as that is done. */
  | "clone"
  /** Boots from a sandbox's own disk, with private memory. */
  | "boot"

/**
 * Descriptors of the QEMU process, by number. Those a role does not use (`state` is a clone's, `kernel` and `initramfs` a
 * boot's, `templateDisk` not a template's own) are /dev/null, and so is `tap` where there is none.
 */
export const descriptors = {
  memory: 3,
  qmpSocket: 4,
  agentSocket: 5,
  overlayDisk: 6,
  templateDisk: 7,
  baseDisk: 8,
  tap: 9,
  state: 10,
  kernel: 11,
  initramfs: 12,
  saved: 13,
  shared: 14,
  words: 15,
} as const

/** Where QEMU writes its device state to, each behind the one before: the descriptor keeps its offset. */
export const savedStateFile = "/dev/fdset/4"

/** The translation cache is QEMU's own memory, per sandbox, under software emulation. */
const translationCacheMib = 64

/** What a machine shares with this host, for bytes in bulk; each has its own (docs/decisions/0020-bulk-bytes-in-shared-memory.md). */
export const sharedMemoryMib = 2

export const probeMemoryMib = 256

/** Kept for diagnosis: the last bytes the guest wrote to its console. */
export const consoleRingBytes = 65_536

const commonKernelArguments = [
  "console=ttyS0",
  "quiet",
  "loglevel=4",
  "panic=-1",
  "reboot=t",
  "root=/dev/vda",
  "rw",
  "net.ifnames=0",
  "random.trust_cpu=on",
  "audit=0",
]

/**
 * Free memory holds only zeros, so that a snapshot contains neither its bytes nor deleted data. The kernel writes them at its start
 * already, to all of its memory: of a template they are left out, but a machine that boots would take its full size on the host.
 */
const templateKernelArguments = ["init_on_free=1"]

/**
 * What a guest's kernel leaves out under emulation; each was chosen by counting what one command executes
 * (docs/decisions/0007-guests-under-emulation.md).
 */
const emulatedKernelArguments = [
  "mitigations=off",
  // Addresses that differ in every process make QEMU translate the same libraries anew for each.
  "norandmaps",
  "randomize_kstack_offset=off",
  "hardened_usercopy=off",
  "init_on_alloc=0",
  "lsm=landlock,yama",
  "psi=0",
  "tsc=reliable",
  // The CPU's "rep" instructions are quick, which is bit 112 of Linux' list of features: emulated ones are not.
  "clearcpuid=112",
  // The agent's environment: its runtime sends itself signals when a function takes long, and here every one does.
  "GODEBUG=asyncpreemptoff=1",
]

export function kernelArgumentsOf(role: Exclude<Role, "clone">, accelerator: Accelerator): string {
  return [
    ...commonKernelArguments,
    ...(role === "template" ? templateKernelArguments : []),
    ...(accelerator === "tcg" ? emulatedKernelArguments : []),
  ].join(" ")
}

/**
 * Without ERMS and FSRM neither kernel nor C library copies byte by byte with "rep movsb", which QEMU does one by one. The others are
 * features of the kernel's alone that it pays for: a fifth level of page tables, and guards against its own mistakes.
 */
export function cpuModel(accelerator: Accelerator): string {
  return accelerator === "kvm" ? "host" : "max,-erms,-fsrm,-la57,-smap,-smep,-umip"
}

const board = "q35,sata=off,smbus=off,usb=off,vmport=off,graphics=off"
const systemCallFilter = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

/** Arguments of a machine without disks, which only prints on its console that a guest boots under KVM. */
export function probeArguments(): string[] {
  return [
    ["-nodefaults"],
    ["-no-user-config"],
    ["-no-reboot"],
    ["-display", "none"],
    ["-machine", board],
    ["-accel", "kvm"],
    ["-cpu", cpuModel("kvm")],
    ["-m", `${probeMemoryMib}M`],
    ["-sandbox", systemCallFilter],
    ["-serial", "stdio"],
    ["-kernel", `/proc/self/fd/${descriptors.kernel}`],
    ["-initrd", `/proc/self/fd/${descriptors.initramfs}`],
    ["-append", "console=ttyS0 loglevel=6 panic=-1 reboot=t bhatti.probe"],
  ].flat()
}

/** The arguments after the program's name. `name` is how an orphan is recognised in the list of processes. */
export function qemuArguments(
  shape: MachineShape,
  role: Role,
  name: string,
  kernelArguments: string[] = [],
): string[] {
  const isClone = role === "clone"
  const isTemplate = role === "template"
  const accelerator = shape.accelerator === "kvm" ? "kvm" : `tcg,thread=multi,tb-size=${translationCacheMib}`

  const drive = (name: string, set: number, isReadOnly: boolean) =>
    `driver=file,node-name=${name}-file,filename=/dev/fdset/${set},read-only=${isReadOnly ? "on" : "off"},auto-read-only=off,locking=off,drop-cache=off,discard=unmap`

  return [
    ["-name", name],
    ["-nodefaults"],
    ["-no-user-config"],
    ["-no-reboot"],
    ["-display", "none"],
    ["-vga", "none"],
    ["-machine", `${board},mem-merge=off,dump-guest-core=off,suppress-vmdesc=on,memory-backend=ram`],
    ["-accel", accelerator],
    ["-cpu", cpuModel(shape.accelerator)],
    ["-smp", `${shape.cpus}`],
    ["-m", `${shape.memoryMib}M`],
    [
      "-object",
      `memory-backend-file,id=ram,size=${shape.memoryMib}M,mem-path=/proc/self/fd/${descriptors.memory},share=${isTemplate ? "on" : "off"}`,
    ],
    [
      "-object",
      `memory-backend-file,id=shared,size=${sharedMemoryMib}M,mem-path=/proc/self/fd/${descriptors.shared},share=on`,
    ],
    ["-sandbox", systemCallFilter],
    ["-global", "migration.send-configuration=off"],

    ["-chardev", `socket,id=qmp,fd=${descriptors.qmpSocket},server=on,wait=off`],
    ["-mon", "chardev=qmp,mode=control"],
    ["-chardev", `ringbuf,id=console,size=${consoleRingBytes}`],
    ["-serial", "chardev:console"],

    ["-add-fd", `fd=${descriptors.overlayDisk},set=1`],
    ["-add-fd", `fd=${descriptors.templateDisk},set=2`],
    ["-add-fd", `fd=${descriptors.baseDisk},set=3`],
    ["-add-fd", `fd=${descriptors.saved},set=4`],
    // QEMU closes descriptors that nothing uses when its monitor's client leaves, as a daemon does that is restarted.
    ["-chardev", `file,id=saved,path=${savedStateFile}`],
    ["-blockdev", drive("base", 3, true)],
    ["-blockdev", "driver=raw,node-name=base,file=base-file,read-only=on"],
    ...(isTemplate
      ? []
      : [
          ["-blockdev", drive("template", 2, true)],
          ["-blockdev", "driver=qcow2,node-name=template,file=template-file,backing=base,read-only=on"],
        ]),
    ["-blockdev", drive("overlay", 1, false)],
    [
      "-blockdev",
      `driver=qcow2,node-name=root,file=overlay-file,backing=${isTemplate ? "base" : "template"},discard=unmap,detect-zeroes=unmap`,
    ],
    // A write for which the host has no space stops the machine and is tried again when it goes on; an error would cost the
    // guest its file system.
    ["-device", "virtio-blk-pci,id=disk0,drive=root,num-queues=1,write-cache=on,werror=enospc,rerror=report"],

    // A clone's vCPUs must not run before the channel is connected: the guest would see it close and open again.
    ["-chardev", `socket,id=agent,fd=${descriptors.agentSocket},server=on,wait=${isClone ? "on" : "off"}`],
    ["-device", "virtio-serial-pci,id=serial0,max_ports=2"],
    ["-device", "virtserialport,bus=serial0.0,nr=1,chardev=agent,name=bhatti.agent"],

    [
      "-netdev",
      shape.network === "tap" ? `tap,id=net0,fd=${descriptors.tap},vhost=off` : "user,id=net0,restrict=on",
    ],
    [
      "-device",
      "virtio-net-pci,id=nic0,netdev=net0,mac=02:00:00:00:00:01,romfile=,guest_announce=off,mq=off",
    ],

    // Without "master" QEMU refuses to load its state.
    ["-device", "ivshmem-plain,id=shared0,memdev=shared,master=on"],

    ...(role === "clone"
      ? [["-incoming", `fd:${descriptors.state}`]]
      : [
          ["-kernel", `/proc/self/fd/${descriptors.kernel}`],
          ["-initrd", `/proc/self/fd/${descriptors.initramfs}`],
          ["-append", [kernelArgumentsOf(role, shape.accelerator), ...kernelArguments].join(" ")],
        ]),
  ].flat()
}
