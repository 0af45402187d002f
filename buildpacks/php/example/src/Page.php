<?php

namespace Hello;

final class Page
{
    public static function text(string $path): string
    {
        $release = getenv('PAASD_RELEASE') ?: 'none';
        return $path === '/health' ? "ok\n" : "Hello from paasd, release {$release}\n";
    }
}
