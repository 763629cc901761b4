/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The confinement of a child. It stays in the zygote's so far, so no daemon may give a child to a tenant.
 */
#include "zygote.h"

int confine_before_fork(const struct confine_order *order, const int descriptors[ZYGOTE_ROLES], const char **step)
{
    (void)order, (void)descriptors, (void)step;
    return 0;
}

int confine_after_fork(const struct confine_order *order, const char **step)
{
    (void)order, (void)step;
    return 0;
}

int confine_child(const struct confine_order *order, const int descriptors[ZYGOTE_ROLES], const char **step)
{
    (void)order, (void)descriptors, (void)step;
    return 0;
}
