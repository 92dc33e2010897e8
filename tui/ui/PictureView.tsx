import { Box, Text } from 'ink';
import { useEffect, useState } from 'react';
import { type Decoded, decode } from './decode.ts';
import { type PictureBox, pictureLines } from './picture.ts';
import { colourDepth, theme } from './theme.ts';

interface Props {
  image: Uint8Array;
  /** In pixels of the image. */
  boxes?: readonly PictureBox[];
  /** Room, in cells. */
  width: number;
  height: number;
}

/** An image in half blocks, with its boxes. */
export function PictureView({ image, boxes = [], width, height }: Props) {
  const [decoded, setDecoded] = useState<Decoded | null>(null);
  const [failure, setFailure] = useState('');
  useEffect(() => {
    let left = false;
    decode(image, width, 2 * height).then(
      (result) => left || setDecoded(result),
      (error: Error) => left || setFailure(error.message),
    );
    return () => {
      left = true;
    };
  }, [image, width, height]);
  const scale = decoded ? decoded.pixels.width / decoded.width : 1;
  const scaled = boxes.map((box) => ({
    ...box,
    x: box.x * scale,
    y: box.y * scale,
    width: box.width * scale,
    height: box.height * scale,
  }));
  const lines = decoded ? pictureLines(decoded.pixels, scaled, colourDepth) : [];
  return (
    <Box flexDirection="column" width={width} height={height} overflow="hidden">
      {failure !== '' && <Text color={theme.muted}>{`It cannot be shown: ${failure}`}</Text>}
      {lines.map((line, row) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a line of a picture is its place.
        <Text key={row} wrap="truncate">
          {line}
        </Text>
      ))}
    </Box>
  );
}
