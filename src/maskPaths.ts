/** Every absolute path of a message as its last part: engines name files of this machine and of the one they were built on. */
export function maskPaths(message: string): string {
  return message.replace(/(?<![\w/.-]|:(?=\/\/))\/(?:[^\s/'",;:()[\]]+\/)+([^\s/'",;:()[\]]*)/g, '$1');
}
