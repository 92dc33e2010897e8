import { Box, Text } from 'ink';
import type { Chart } from '../screens/curves.ts';
import { number, printable } from './format.ts';
import { plot } from './plot.ts';
import { glyphs, theme } from './theme.ts';

/** A chart with its legend, which has the newest value of each curve, or the number of points. */
export function ChartView({ chart, width, height, log }: { chart: Chart; width: number; height: number; log: boolean }) {
  const colorOf = (series: number | null) => (series === null ? theme.muted : theme.series[series % theme.series.length]);
  const lines = plot(chart.series, { width, height: Math.max(1, height - 1), log, glyphs });
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text wrap="truncate">
        <Text bold>{` ${printable(chart.title)}${log ? ' (log)' : ''}`}</Text>
        {chart.series.map(({ name, isScattered, mark = isScattered ? '•' : '━', points }, i) => (
          <Text key={name} color={colorOf(i)}>
            {`  ${mark} ${printable(name)} ${isScattered ? points.length : number(points.at(-1)?.y)}`}
          </Text>
        ))}
      </Text>
      {lines.map((pieces, row) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a line of a picture is its place.
        <Text key={row} wrap="truncate">
          {pieces.map(({ text, series }, i) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: see above.
            <Text key={i} color={colorOf(series)}>
              {text}
            </Text>
          ))}
        </Text>
      ))}
    </Box>
  );
}
