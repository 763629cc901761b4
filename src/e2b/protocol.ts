/**
 * The messages of e2b's agent, as tables: a field's number, name and type, `[]` for a list, `{}` for a map of text, and
 * `name?` for presence. From them come the descriptors that the Connect library needs, which this project therefore
 * does not generate.
 */

import { create, createFileRegistry, type DescService } from "@bufbuild/protobuf"
import {
  type DescriptorProto,
  DescriptorProtoSchema,
  FileDescriptorProtoSchema,
  file_google_protobuf_timestamp,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt"

type Fields = Record<string, string>
type Methods = Record<string, [input: string, output: string, kind?: "stream"]>

const scalars: Record<string, Type> = {
  string: Type.STRING,
  bool: Type.BOOL,
  bytes: Type.BYTES,
  uint32: Type.UINT32,
  int32: Type.INT32,
  int64: Type.INT64,
  sint32: Type.SINT32,
}

/** Messages of others. */
const known: Record<string, string> = { Timestamp: ".google.protobuf.Timestamp" }

const processMessages: Record<string, Fields> = {
  Size: { "1 cols": "uint32", "2 rows": "uint32" },
  PTY: { "1 size?": "Size" },
  ProcessConfig: { "1 cmd": "string", "2 args": "string[]", "3 envs": "{}", "4 cwd?": "string" },
  ProcessInfo: { "1 config": "ProcessConfig", "2 pid": "uint32", "3 tag?": "string" },
  ProcessSelector: { "1 selector.pid": "uint32", "2 selector.tag": "string" },
  ListRequest: {},
  ListResponse: { "1 processes": "ProcessInfo[]" },
  StartRequest: { "1 process": "ProcessConfig", "2 pty?": "PTY", "3 tag?": "string", "4 stdin?": "bool" },
  ConnectRequest: { "1 process": "ProcessSelector" },
  StartEvent: { "1 pid": "uint32" },
  DataEvent: { "1 output.stdout": "bytes", "2 output.stderr": "bytes", "3 output.pty": "bytes" },
  EndEvent: { "1 exit_code": "sint32", "2 exited": "bool", "3 status": "string", "4 error?": "string" },
  KeepAlive: {},
  ProcessEvent: {
    "1 event.start": "StartEvent",
    "2 event.data": "DataEvent",
    "3 event.end": "EndEvent",
    "4 event.keepalive": "KeepAlive",
  },
  EventResponse: { "1 event": "ProcessEvent" },
  UpdateRequest: { "1 process": "ProcessSelector", "2 pty?": "PTY" },
  ProcessInput: { "1 input.stdin": "bytes", "2 input.pty": "bytes" },
  SendInputRequest: { "1 process": "ProcessSelector", "2 input": "ProcessInput" },
  SendSignalRequest: { "1 process": "ProcessSelector", "2 signal": "Signal" },
  CloseStdinRequest: { "1 process": "ProcessSelector" },
  Empty: {},
}

const processMethods: Methods = {
  List: ["ListRequest", "ListResponse"],
  Start: ["StartRequest", "EventResponse", "stream"],
  Connect: ["ConnectRequest", "EventResponse", "stream"],
  Update: ["UpdateRequest", "Empty"],
  SendInput: ["SendInputRequest", "Empty"],
  SendSignal: ["SendSignalRequest", "Empty"],
  CloseStdin: ["CloseStdinRequest", "Empty"],
}

const signals = { SIGNAL_UNSPECIFIED: 0, SIGNAL_SIGKILL: 9, SIGNAL_SIGTERM: 15 }

export const processService = serviceOf("process", "Process", {
  messages: processMessages,
  methods: processMethods,
  enums: { Signal: signals },
})

const filesystemMessages: Record<string, Fields> = {
  EntryInfo: {
    "1 name": "string",
    "2 type": "FileType",
    "3 path": "string",
    "4 size": "int64",
    "5 mode": "uint32",
    "6 permissions": "string",
    "7 owner": "string",
    "8 group": "string",
    "9 modified_time": "Timestamp",
    "10 symlink_target?": "string",
    "11 metadata": "{}",
  },
  PathRequest: { "1 path": "string" },
  MoveRequest: { "1 source": "string", "2 destination": "string" },
  EntryResponse: { "1 entry": "EntryInfo" },
  ListDirRequest: { "1 path": "string", "2 depth": "uint32" },
  ListDirResponse: { "1 entries": "EntryInfo[]" },
  WatchRequest: {
    "1 path": "string",
    "2 recursive": "bool",
    "3 include_entry": "bool",
    "4 allow_network_mounts": "bool",
  },
  FilesystemEvent: { "1 name": "string", "2 type": "EventType", "3 entry?": "EntryInfo" },
  WatchDirResponse: {
    "1 event.start": "Empty",
    "2 event.filesystem": "FilesystemEvent",
    "3 event.keepalive": "Empty",
  },
  CreateWatcherResponse: { "1 watcher_id": "string" },
  WatcherRequest: { "1 watcher_id": "string" },
  GetWatcherEventsResponse: { "1 events": "FilesystemEvent[]" },
  Empty: {},
}

const filesystemMethods: Methods = {
  Stat: ["PathRequest", "EntryResponse"],
  MakeDir: ["PathRequest", "EntryResponse"],
  Move: ["MoveRequest", "EntryResponse"],
  ListDir: ["ListDirRequest", "ListDirResponse"],
  Remove: ["PathRequest", "Empty"],
  WatchDir: ["WatchRequest", "WatchDirResponse", "stream"],
  CreateWatcher: ["WatchRequest", "CreateWatcherResponse"],
  GetWatcherEvents: ["WatcherRequest", "GetWatcherEventsResponse"],
  RemoveWatcher: ["WatcherRequest", "Empty"],
}

const fileTypes = {
  FILE_TYPE_UNSPECIFIED: 0,
  FILE_TYPE_FILE: 1,
  FILE_TYPE_DIRECTORY: 2,
  FILE_TYPE_SYMLINK: 3,
}
const eventTypes = {
  EVENT_TYPE_UNSPECIFIED: 0,
  EVENT_TYPE_CREATE: 1,
  EVENT_TYPE_WRITE: 2,
  EVENT_TYPE_REMOVE: 3,
  EVENT_TYPE_RENAME: 4,
  EVENT_TYPE_CHMOD: 5,
}

export const filesystemService = serviceOf("filesystem", "Filesystem", {
  messages: filesystemMessages,
  methods: filesystemMethods,
  enums: { FileType: fileTypes, EventType: eventTypes },
})

function serviceOf(
  pack: string,
  name: string,
  {
    messages,
    methods,
    enums,
  }: { messages: Record<string, Fields>; methods: Methods; enums: Record<string, Record<string, number>> },
): DescService {
  const file = create(FileDescriptorProtoSchema, {
    name: `${pack}.proto`,
    package: pack,
    syntax: "proto3",
    dependency: [file_google_protobuf_timestamp.proto.name],
    messageType: Object.entries(messages).map(([message, fields]) => messageOf(pack, message, fields, enums)),
    enumType: Object.entries(enums).map(([one, values]) => ({
      name: one,
      value: Object.entries(values).map(([value, number]) => ({ name: value, number })),
    })),
    service: [
      {
        name,
        method: Object.entries(methods).map(([method, [input, output, kind]]) => ({
          name: method,
          inputType: `.${pack}.${input}`,
          outputType: `.${pack}.${output}`,
          serverStreaming: kind === "stream",
        })),
      },
    ],
  })
  const service = createFileRegistry(file, () => file_google_protobuf_timestamp).getService(`${pack}.${name}`)
  if (!service) throw new Error(`no service ${name}`)
  return service
}

function messageOf(
  pack: string,
  name: string,
  fields: Fields,
  enums: Record<string, unknown>,
): DescriptorProto {
  const oneofs: string[] = []
  const nested: DescriptorProto[] = []
  const own = Object.entries(fields).map(([key, type]) => {
    const [number = "", given = ""] = key.split(" ")
    const isOptional = given.endsWith("?")
    const [group, member] = given.replace("?", "").split(".")
    const fieldName = member ?? group ?? ""
    const oneof = member === undefined ? (isOptional ? `_${fieldName}` : undefined) : group
    if (oneof !== undefined && !oneofs.includes(oneof)) oneofs.push(oneof)
    if (type === "{}") nested.push(mapEntry(fieldName))
    const element = type.replace("[]", "")
    const scalar = scalars[element]
    const messageName =
      type === "{}" ? `.${pack}.${name}.${entryName(fieldName)}` : (known[element] ?? `.${pack}.${element}`)
    return {
      name: fieldName,
      jsonName: fieldName.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
      number: Number(number),
      label: type.endsWith("[]") || type === "{}" ? Label.REPEATED : Label.OPTIONAL,
      type: scalar ?? (element in enums ? Type.ENUM : Type.MESSAGE),
      ...(scalar === undefined && { typeName: messageName }),
      ...(oneof !== undefined && { oneofIndex: oneofs.indexOf(oneof) }),
      ...(isOptional && member === undefined && { proto3Optional: true }),
    }
  })
  return create(DescriptorProtoSchema, {
    name,
    field: own,
    nestedType: nested,
    oneofDecl: oneofs.map((one) => ({ name: one })),
  })
}

function entryName(field: string): string {
  return `${field.charAt(0).toUpperCase()}${field.slice(1)}Entry`
}

function mapEntry(field: string): DescriptorProto {
  const text = (name: string, number: number) => ({
    ...{ name, jsonName: name, number },
    ...{ label: Label.OPTIONAL, type: Type.STRING },
  })
  return create(DescriptorProtoSchema, {
    name: entryName(field),
    field: [text("key", 1), text("value", 2)],
    options: { mapEntry: true },
  })
}
