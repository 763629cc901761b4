/** A task on the wire. */

import { type StartedTask, Task } from "@bhatti/contract/task"
import type { TaskRecord } from "../../store/tasks.ts"

export function viewTask(record: TaskRecord): Task {
  return Task.parse({
    id: record.id,
    user_id: record.userId,
    type: record.kind,
    subject: record.subject,
    status: record.state,
    progress: record.progress,
    result: record.result,
    error: record.error,
    created_at: record.createdAt,
    completed_at: record.endedAt,
  })
}

export function viewStarted({ id, subject }: TaskRecord): StartedTask {
  return { task_id: id, status: "running", image: subject }
}
