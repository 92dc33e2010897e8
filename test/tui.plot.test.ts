import { expect, test } from 'vitest';
import { type PlotOptions, plot, type Series, sparkline } from '../tui/ui/plot.ts';

const pictureOf = (series: Series[], options: PlotOptions): string =>
  `\n${plot(series, options)
    .map((pieces) => pieces.map(({ text }) => text).join(''))
    .join('\n')}`;

const curve = (name: string, ...ys: number[]): Series => ({ name, points: ys.map((y, x) => ({ x, y })) });
const decay = curve('loss', ...Array.from({ length: 30 }, (_, i) => 2 * Math.exp(-i / 6)));

test('a curve in braille', () => {
  expect(pictureOf([decay], { width: 40, height: 8 })).toMatchInlineSnapshot(`
    "
         2 ┤⠱⡀                              
           │ ⠱⡀                             
           │  ⠑⢄                            
      1.01 ┤    ⠑⢄                          
           │      ⠑⢄                        
           │        ⠉⠑⠢⢄⡀                   
    0.0159 ┤            ⠈⠉⠑⠒⠒⠒⠤⠤⠤⠤⠤⢄⣀⣀⣀⣀⣀⣀⣀⣀
           └0                             29"
  `);
});

test('on a log axis an exponential decay is a straight line', () => {
  expect(pictureOf([decay], { width: 40, height: 8, log: true })).toMatchInlineSnapshot(`
    "
         2 ┤⠑⠢⠤⣀                            
           │    ⠉⠒⠤⣀⣀⡀                      
           │         ⠈⠑⠢⢄⡀                  
     0.178 ┤             ⠈⠑⠒⠤⣀              
           │                  ⠉⠒⠤⣀⡀         
           │                      ⠈⠉⠑⠢⢄⡀    
    0.0159 ┤                           ⠈⠉⠒⠤⣀
           └0                             29"
  `);
});

test('without braille the curve is of half blocks', () => {
  expect(pictureOf([decay], { width: 40, height: 8, glyphs: 'blocks' })).toMatchInlineSnapshot(`
    "
         2 ┤▀▄                              
           │ ▀▄                             
           │  ▀▄                            
      1.01 ┤    ▀▄                          
           │      ▀▄                        
           │        ▀▀▀▄▄▄                  
    0.0159 ┤              ▀▀▀▀▀▀▄▄▄▄▄▄▄▄▄▄▄▄
           └0                             29"
  `);
});

test('scattered points are not joined, and each has its mark where there is room', () => {
  const points = [1, 3, 2, 5].map((y, x) => ({ x, y }));
  const best = { name: 'front', mark: '*', isScattered: true, points: points.slice(3) };
  expect(
    pictureOf([{ name: 'trials', isScattered: true, points: points.slice(0, 3) }, best], { width: 40, height: 8 }),
  ).toMatchInlineSnapshot(`
    "
    5 ┤                                    *
      │                                     
      │                                     
    3 ┤            ⣤                        
      │                                     
      │                        ⠘⠃           
    1 ┤⣀                                    
      └0                                   3"
  `);
});

test('the smallest chart still has its curve', () => {
  expect(pictureOf([decay], { width: 16, height: 2 })).toMatchInlineSnapshot(`
    "
         2 ┤⠙⠢⠤⣀⣀⣀⣀⣀
           └0     29"
  `);
});

test('a constant curve runs through the middle, and a single point is a dot', () => {
  expect(pictureOf([curve('rate', 0.1, 0.1, 0.1)], { width: 20, height: 4 })).toMatchInlineSnapshot(`
    "
    0.15 ┤              
     0.1 ┤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤
    0.05 ┤              
         └0            2"
  `);
  expect(pictureOf([curve('rate', 3)], { width: 20, height: 4 })).toMatchInlineSnapshot(`
    "
    4.5 ┤               
      3 ┤⠄              
    1.5 ┤               
        └0             0"
  `);
});

test('each curve keeps its number, for its colour', () => {
  const pieces = plot([curve('a', 0, 0, 0), curve('b', 1, 1, 1)], { width: 20, height: 4 }).flat();
  expect(new Set(pieces.filter(({ text }) => /[⠁-⣿]/.test(text)).map(({ series }) => series))).toEqual(new Set([0, 1]));
});

test('what has no place on the axis is left out', () => {
  const odd = curve('odd', Number.NaN, 1, Number.POSITIVE_INFINITY, 2);
  expect(pictureOf([odd], { width: 20, height: 4 })).not.toContain('NaN');
  expect(pictureOf([curve('zero', 0, 0)], { width: 40, height: 3, log: true })).toContain('nothing above 0');
  expect(pictureOf([], { width: 40, height: 3 })).toContain('no points yet');
});

test('no line is wider than the chart, whatever its size', () => {
  for (let width = 4; width < 60; width += 7) {
    for (let height = 1; height < 12; height += 2) {
      for (const pieces of plot([decay], { width, height })) {
        expect(pieces.reduce((sum, { text }) => sum + text.length, 0)).toBeLessThanOrEqual(width);
      }
    }
  }
});

test('a sparkline has the last values, the largest the highest', () => {
  expect(sparkline([9, 0, 1, 2, 4, 8], 5)).toBe('▁▂▃▅█');
  expect(sparkline([], 5)).toBe('');
});
