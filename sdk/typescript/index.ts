/** The SDK's public door. The other modules of the package may change with any version. */

export type { Api } from "@bhatti/contract/api"
export {
  AppError,
  type ErrorCode,
  type LossReason,
  lossReasons,
  type StartReason,
  startReasons,
} from "@bhatti/contract/errors"
export type { Event } from "@bhatti/contract/event"
export type { ExecResult, SignalName } from "@bhatti/contract/exec"
export type { FileEntry, FileEvent } from "@bhatti/contract/file"
export type { Image } from "@bhatti/contract/image"
export type { Process } from "@bhatti/contract/process"
export type { PublishedPort } from "@bhatti/contract/publish"
export type { Sandbox } from "@bhatti/contract/sandbox"
export type { Session } from "@bhatti/contract/session"
export type { Snapshot } from "@bhatti/contract/snapshot"
export {
  type Bytes,
  type Client,
  type ClientOptions,
  connect,
  type FileChange,
  type FollowQuery,
  type ProcessStreamQuery,
  type WatchedDirectory,
} from "./client.ts"
export type { ExecExit, ExecStream, ExecStreamStart } from "./exec-stream.ts"
export { Refusal, type UnreachedReason } from "./failure.ts"
export type { Notice, OnNotice } from "./notice.ts"
export type { Reconnection } from "./reconnection.ts"
export type { ShellEnd, ShellSession, ShellStream, ShellStreamStart } from "./shell-stream.ts"
export type { Socket } from "./socket.ts"
export type { StreamOutput } from "./stream-socket.ts"
