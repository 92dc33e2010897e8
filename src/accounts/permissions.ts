import type { Permission, Role } from './tables.ts';

/** What a role may do. Each field's scope is one of these; a test holds the whole schema against the roles. */
export const permissions = {
  READ: ['VIEWER', 'ENGINEER', 'ADMIN'],
  UPLOAD: ['ENGINEER', 'ADMIN'],
  RUN_JOBS: ['ENGINEER', 'ADMIN'],
  DEPLOY: ['ENGINEER', 'ADMIN'],
  TRY_DEPLOYMENTS: ['VIEWER', 'ENGINEER', 'ADMIN'],
  INFER: ['ENGINEER', 'ADMIN'],
  DELETE: ['ADMIN'],
  MANAGE_USERS: ['ADMIN'],
  READ_AUDIT: ['ADMIN'],
  CONFIGURE: ['ADMIN'],
} as const satisfies Record<Permission, readonly Role[]>;

export function may(role: Role, permission: Permission): boolean {
  return (permissions[permission] as readonly Role[]).includes(role);
}
