import { expect, test } from 'vitest';
import { createBus } from '../src/bus.ts';

test('a key is heard by those who listen to it or to every key, and by nobody else', () => {
  const bus = createBus();
  const heard: string[] = [];
  bus.on('jobEvent', 'a', (key) => heard.push(`a hears ${key}`));
  bus.on('jobEvent', 'b', (key) => heard.push(`b hears ${key}`));
  bus.on('jobEvent', null, (key) => heard.push(`all hear ${key}`));
  bus.on('jobLog', null, (key) => heard.push(`another topic hears ${key}`));
  bus.wake('jobEvent', 'a');
  bus.wake('jobEvent', 'c');
  expect(heard).toEqual(['a hears a', 'all hear a', 'all hear c']);
});

test('a listener that was stopped, also by itself or by another in the middle of a wake, hears no more', () => {
  const bus = createBus();
  const heard: string[] = [];
  const offFirst = bus.on('jobEvent', 'j', () => {
    heard.push('first');
    offFirst();
    offSecond();
  });
  const offSecond = bus.on('jobEvent', 'j', () => heard.push('second'));
  bus.on('jobEvent', 'j', () => heard.push('third'));
  bus.wake('jobEvent', 'j');
  bus.wake('jobEvent', 'j');
  expect(heard).toEqual(['first', 'third', 'third']);
});
