/** A secret that the server has shown this once: nothing but these keys leads away from it. */
import { Box, Text } from 'ink';
import { wrap } from '../ui/format.ts';
import { level, useKeys } from '../ui/keys.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';

interface Props {
  /** Whose secret it is. */
  name: string;
  secret: string;
  /** What to do with it. */
  use: string;
  width: number;
  onClose(): void;
}

export function Secret({ name, secret, use, width, onClose }: Props) {
  const { copy } = useFrame();
  useKeys(
    [
      { keys: ['enter', 'esc'], label: 'I have copied it', hint: true, run: onClose },
      { keys: 'c', label: 'copy', hint: true, run: () => copy('The secret', secret, 'secret') },
    ],
    { level: level.part, modal: true },
  );
  return (
    <Box flexDirection="column" paddingX={1}>
      {wrap(`The secret of ${name}. It is shown this once: copy it now.`, width - 2).map((line) => (
        <Text key={line} bold color={theme.warn}>
          {line}
        </Text>
      ))}
      <Text> </Text>
      <Text bold>{secret}</Text>
      <Text> </Text>
      {wrap(use, width - 2).map((line) => (
        <Text key={line} color={theme.muted}>
          {line}
        </Text>
      ))}
    </Box>
  );
}
